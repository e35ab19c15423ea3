"""All that this package takes from vLLM: nothing else imports it or knows its attributes.

Facts are of vLLM 0.32; `tests_vllm` fails when another version differs. `tests` puts a stand-in here.
"""

from __future__ import annotations

import asyncio
import copy
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from promptseam_vllm import detokenizer
from promptseam_vllm.detokenizer import primed_with_the_tail, tail_will_do
from promptseam_vllm.errors import InvalidRequestError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from starlette.datastructures import State
    from starlette.requests import Request

    from promptseam_vllm.sampled import Sampled

    Turn = Callable[[Any, Request], Awaitable[Any]]

_OTHER_PROMPT: Final = "This request can't be run on token ids: it asks for media, echo or another use of its messages."


@dataclass(frozen=True)
class VllmApi:
    """vLLM's classes and helpers."""

    chat_request: Any
    """Pydantic model of a chat completion body."""
    generate_request: Any
    """Pydantic model of a body of /inference/v1/generate."""
    error_response: type
    """What a serving object gives instead of an answer."""
    client_error: type[Exception]
    """What vLLM raises for a request that is wrong."""
    guard: Callable[[Turn], Turn]
    """Cancels the turn when its client goes away, and counts it in the server's load."""
    keep_alive: Callable[[AsyncGenerator[str, None], float], AsyncGenerator[str, None]]
    """Adds comments to an idle event stream, every so many seconds; 0 for never."""


def load() -> VllmApi:
    """Import vLLM."""
    from tokenizers import decoders  # noqa: PLC0415
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest  # noqa: PLC0415
    from vllm.entrypoints.scale_out.token_in_token_out.protocol import GenerateRequest  # noqa: PLC0415
    from vllm.entrypoints.serve.engine.protocol import ErrorResponse  # noqa: PLC0415
    from vllm.entrypoints.serve.utils.api_utils import load_aware_call, with_cancellation  # noqa: PLC0415
    from vllm.entrypoints.serve.utils.sse_keep_alive import with_sse_keep_alive  # noqa: PLC0415
    from vllm.exceptions import VLLMClientError  # noqa: PLC0415

    detokenizer.patch(decoders)

    def guard(turn: Turn) -> Turn:
        guarded: Turn = with_cancellation(load_aware_call(turn))
        return guarded

    return VllmApi(
        chat_request=ChatCompletionRequest,
        generate_request=GenerateRequest,
        error_response=ErrorResponse,
        client_error=VLLMClientError,
        guard=guard,
        keep_alive=with_sse_keep_alive,
    )


class Server:
    """The running server, as its application state shows it; cheap to make, one per request."""

    def __init__(self, api: VllmApi, state: State) -> None:
        """`state` is the FastAPI application's."""
        self._api = api
        self._state = state
        self._models = state.openai_serving_models

    @property
    def max_tokens(self) -> int:
        """How many tokens the model's context holds."""
        limit: int = self._models.model_config.max_model_len
        return limit

    def models(self) -> list[str]:
        """Name what can be asked for, adapters last."""
        return [*(path.name for path in self._models.base_model_paths), *self._models.lora_requests]

    def model(self, requested: str | None) -> str:
        """Give the name of the model that answers a request that may name none."""
        name: str = requested or self._models.model_name()
        return name

    def has_token(self, token_id: int) -> bool:
        """Tell whether the id is in the vocabulary, by vLLM's own check."""
        try:
            self._models.renderer.validate_token_ids([token_id])
        except self._api.client_error:
            return False
        return True

    def keep_alive_seconds(self) -> float:
        """Give the interval of comments in idle event streams."""
        return float(getattr(self._state.args, "sse_keep_alive_interval", 0) or 0)

    async def chat(self, request: Any, raw_request: Request, sampled: Sampled) -> Any:  # noqa: ANN401
        """Run a chat completion on `sampled.prompt`; gives vLLM's answer, event stream or error."""
        # vLLM looks at every id that a chat is given, twice, in Python: 2 ms for 30,000 ids, which `check_ids` needs none of. One
        # stands in for them until it made its input for the engine of it. vLLM takes this member out again itself.
        stand_in = sampled.prompt[-1:]
        request.kv_transfer_params = {**(request.kv_transfer_params or {}), "prompt_token_ids": stand_in}
        serving = self._watched("openai_serving_chat", sampled)
        render = serving.render_chat_request

        async def rendered(request: Any) -> Any:  # noqa: ANN401
            result = await render(request)
            if isinstance(result, tuple):
                for prompt in result[1]:
                    if prompt.get("prompt_token_ids") is not stand_in:
                        raise InvalidRequestError(_OTHER_PROMPT)
                    prompt["prompt_token_ids"] = sampled.prompt
            return result

        serving.render_chat_request = rendered
        return await serving.create_chat_completion(request, raw_request)

    async def generate(self, request: Any, raw_request: Request, sampled: Sampled) -> Any:  # noqa: ANN401
        """Run the engine on `sampled.prompt`; gives vLLM's answer, event stream or error."""
        request.token_ids = sampled.prompt
        serving = self._watched("serving_tokens", sampled)
        return await serving.serve_tokens(request, raw_request)

    def _watched(self, attribute: str, sampled: Sampled) -> Any:  # noqa: ANN401
        """Give the serving object with an engine that tells `sampled` what passes.

        It is a copy, for this request: no other request, and nothing of the server's, is touched. The serving objects hold
        references only, so a shallow copy is whole.
        """
        serving = getattr(self._state, attribute, None)
        if serving is None:
            raise UnsupportedError("This server does not generate with the model that it runs.")
        watched = copy.copy(serving)
        short = tail_will_do(self._models.renderer.tokenizer, sampled.prompt)
        watched.engine_client = _WatchedEngine(serving.engine_client, sampled, short=short)
        return watched


class _WatchedEngine:
    """vLLM's engine client, for one request."""

    def __init__(self, engine: Any, sampled: Sampled, *, short: bool) -> None:  # noqa: ANN401
        self._engine = engine
        self._sampled = sampled
        self._short = short

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._engine, name)

    def generate(self, prompt: Any, sampling_params: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:  # noqa: ANN401
        """Refuse any prompt but the one that was asked for, then pass everything on."""
        ids = prompt.get("prompt_token_ids") if isinstance(prompt, dict) else None
        if ids is not self._sampled.prompt and ids != self._sampled.prompt:
            raise InvalidRequestError(_OTHER_PROMPT)
        delta = sampling_params.output_kind.name == "DELTA"
        with primed_with_the_tail(allowed=self._short):
            begun = _Begun(self._engine.generate(prompt, sampling_params, *args, **kwargs))
        return self._watch(begun, delta=delta)

    async def _watch(self, begun: _Begun, *, delta: bool) -> AsyncGenerator[Any, None]:
        # Closing is what aborts the engine's work when the client is gone.
        async with aclosing(begun.outputs):
            with suppress(StopAsyncIteration):
                output = await begun.first
                while True:
                    self._sampled.see(output, delta=delta)
                    yield output
                    output = await anext(begun.outputs)


class _Begun:
    """Outputs of the engine that are waited for already.

    vLLM gives the engine a request when its first output is asked for, which is after the headers of the answer are written. The
    engine has better things to do meanwhile.
    """

    def __init__(self, outputs: AsyncGenerator[Any, None]) -> None:
        self.outputs = outputs
        self.first = asyncio.ensure_future(anext(outputs))

    def __del__(self) -> None:
        # Of an answer that nobody began to read.
        self.first.cancel()
