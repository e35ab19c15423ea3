"""A stand-in for vLLM 0.32's application state: the same names, signatures and event streams, and an engine that samples what
the request scripts. `tests_vllm/test_signatures.py` holds it to the real one.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import json
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from blake3 import blake3
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict, Field

from promptseam_vllm.engine import VllmApi
from promptseam_vllm.metrics import Metrics
from promptseam_vllm.routes import Routes
from promptseam_vllm.settings import Settings
from promptseam_vllm.store import HandleStore

VOCABULARY = 1000
MAX_MODEL_LEN = 5000
STOP = 999


class VLLMClientError(Exception):
    """As in vLLM, no ValueError."""


class ErrorInfo(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: int


class ErrorResponse(BaseModel):
    error: ErrorInfo


class ChatCompletionRequest(BaseModel):
    model_config = ConfigDict(extra="allow")
    messages: list[dict[str, Any]]
    model: str | None = None
    stream: bool | None = False
    n: int | None = 1
    max_tokens: int | None = None
    echo: bool = False
    use_beam_search: bool = False
    truncate_prompt_tokens: int | None = None
    cache_salt: str | None = None
    return_token_ids: bool | None = None
    kv_transfer_params: dict[str, Any] | None = None
    vllm_xargs: dict[str, Any] | None = None


class GenerateRequest(BaseModel):
    token_ids: list[int] = Field(min_length=1)
    sampling_params: dict[str, Any]
    model: str | None = None
    stream: bool | None = False
    cache_salt: str | None = None
    return_token_ids: bool | None = None
    features: dict[str, Any] | None = None
    content_parts: list[dict[str, Any]] | None = None


class Answer(BaseModel):
    id: str
    choices: list[dict[str, Any]]
    usage: dict[str, int]
    prompt_token_ids: list[int] | None = None


class RequestOutputKind(enum.Enum):
    DELTA = 1
    FINAL_ONLY = 2


class Engine:
    """Samples `script` for the first choice and its reverse for the others, then the stop token.

    A script member that is a word happens instead: `fail` raises, `abort` ends the choice as aborted, `wait` waits for good.
    """

    def __init__(self) -> None:
        self.model_config = SimpleNamespace(max_model_len=MAX_MODEL_LEN)
        self.prompts: list[list[int]] = []
        self.salts: list[str | None] = []
        self.aborted = 0
        self.waiting = asyncio.Event()

    async def generate(self, prompt, sampling_params, request_id, *, lora_request=None, priority=0):
        self.prompts.append(prompt["prompt_token_ids"])
        self.salts.append(prompt.get("cache_salt"))
        script = [*sampling_params.script, STOP]
        so_far: list[int] = []
        try:
            for number, word in enumerate(script):
                if word == "fail":
                    raise RuntimeError("the engine broke")
                if word == "wait":
                    self.waiting.set()
                    await asyncio.Event().wait()
                reason = "abort" if word == "abort" else "stop" if number == len(script) - 1 else None
                so_far += [] if reason == "abort" else [word]
                delta = sampling_params.output_kind is RequestOutputKind.DELTA
                if not delta and reason is None:
                    continue
                first = so_far[-1:] if delta and reason != "abort" else [] if delta else list(so_far)
                outputs = [SimpleNamespace(index=0, token_ids=first, finish_reason=reason)]
                outputs += [
                    SimpleNamespace(index=index, token_ids=first[::-1], finish_reason=reason)
                    for index in range(1, sampling_params.n)
                ]
                # The first choice is not always the first in the list.
                yield SimpleNamespace(prompt_token_ids=prompt["prompt_token_ids"], outputs=outputs[::-1])
                if reason is not None:
                    return
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted += 1
            raise


class Models:
    def __init__(self, engine: Engine) -> None:
        self.base_model_paths = [SimpleNamespace(name="base")]
        self.lora_requests = {"adapter": object()}
        self.model_config = engine.model_config
        self.renderer = self
        self.tokenizer = None

    def model_name(self, lora_request=None):
        return self.base_model_paths[0].name

    def validate_token_ids(self, token_ids, *, parameter=None):
        if max(token_ids) >= VOCABULARY:
            raise VLLMClientError(f"Token id {max(token_ids)} is out of vocabulary")

    def served(self, name):
        return not name or name in ("base", "adapter")


class Serving:
    def __init__(self, engine_client: Engine, models: Models) -> None:
        self.engine_client = engine_client
        self.models = models

    def outputs(self, request, ids, script, n):
        params = SimpleNamespace(
            output_kind=RequestOutputKind.DELTA if request.stream else RequestOutputKind.FINAL_ONLY,
            script=[int(word) if word.isdigit() else word for word in script.split()],
            n=n,
        )
        prompt = {"prompt_token_ids": ids, "cache_salt": request.cache_salt}
        return self.engine_client.generate(prompt, params, "request", lora_request=None, priority=0)

    def unknown_model(self, request):
        if self.models.served(request.model):
            return None
        return ErrorResponse(error=ErrorInfo(message="The model does not exist.", type="NotFoundError", code=404))

    async def full(self, request, outputs, **members):
        final = None
        try:
            async for output in outputs:
                final = output
        except asyncio.CancelledError:
            return ErrorResponse(error=ErrorInfo(message="Client disconnected", type="BadRequestError", code=400))
        return Answer(
            id="answer",
            choices=[
                {"index": choice.index, "token_ids": choice.token_ids, "finish_reason": choice.finish_reason}
                for choice in final.outputs
            ],
            usage={"prompt_tokens": len(final.prompt_token_ids)},
            prompt_token_ids=final.prompt_token_ids if request.return_token_ids else None,
            **members,
        )


def event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


class ServingChat(Serving):
    async def render_chat_request(self, request):
        if (error := self.unknown_model(request)) is not None:
            return error
        ids = request.kv_transfer_params.pop("prompt_token_ids")
        return [], [{"type": "token", "prompt_token_ids": [7, 7, 7] if request.echo else ids}]

    async def create_chat_completion(self, request, raw_request=None):
        result = await self.render_chat_request(request)
        if isinstance(result, ErrorResponse):
            return result
        (prompt,) = result[1]
        script = (request.vllm_xargs or {}).get("script", "")
        outputs = self.outputs(request, prompt["prompt_token_ids"], script, request.n or 1)
        return self.chunks(request, outputs) if request.stream else await self.full(request, outputs)

    async def chunks(self, request, outputs):
        first = True
        try:
            async for output in outputs:
                if first:
                    for index in range(request.n or 1):
                        prompt = output.prompt_token_ids if request.return_token_ids else None
                        yield event({"choices": [{"index": index, "delta": {"role": "assistant"}}], "prompt_token_ids": prompt})
                    first = False
                for choice in output.outputs:
                    ids = choice.token_ids if request.return_token_ids else None
                    yield event({"choices": [{"index": choice.index, "delta": {}, "token_ids": ids}]})
        except Exception as error:
            yield event({"error": {"message": str(error), "type": "InternalServerError", "param": None, "code": 500}})
        yield "data: [DONE]\n\n"


class ServingTokens(Serving):
    async def serve_tokens(self, request, raw_request=None):
        if (error := self.unknown_model(request)) is not None:
            return error
        script = request.sampling_params.get("extra_args", {}).get("script", "")
        outputs = self.outputs(request, request.token_ids, script, request.sampling_params.get("n", 1))
        return self.chunks(request, outputs) if request.stream else await self.full(request, outputs)

    async def chunks(self, request, outputs):
        prompt = {}
        async for output in outputs:
            if request.return_token_ids:
                prompt = {"prompt_token_ids": output.prompt_token_ids}
            for choice in output.outputs:
                yield event({"choices": [{"index": choice.index, "token_ids": choice.token_ids}], **prompt})
        yield "data: [DONE]\n\n"


def guard(turn):
    @functools.wraps(turn)
    async def guarded(body: Any, raw_request: Request):
        async def gone() -> None:
            while (await raw_request.receive())["type"] != "http.disconnect":
                pass

        tasks = asyncio.create_task(turn(body, raw_request)), asyncio.create_task(gone())
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        return tasks[0].result() if tasks[0] in done else None

    return guarded


API = VllmApi(
    chat_request=ChatCompletionRequest,
    generate_request=GenerateRequest,
    error_response=ErrorResponse,
    client_error=VLLMClientError,
    guard=guard,
    keep_alive=lambda events, _interval: events,
)


class StandIn:
    """An application with the routes; `settings` as in Settings."""

    def __init__(self, **settings: Any) -> None:
        self.now = 0.0
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry)
        chosen = Settings(**settings)
        self.store = HandleStore(
            max_bytes=chosen.max_bytes,
            tenant_max_bytes=chosen.tenant_max_bytes,
            ttl_seconds=chosen.ttl_seconds,
            watcher=metrics,
            clock=lambda: self.now,
        )
        self.engine = Engine()
        models = Models(self.engine)
        self.app = FastAPI()
        self.app.state.args = SimpleNamespace()
        self.app.state.openai_serving_models = models
        self.app.state.openai_serving_chat = ServingChat(self.engine, models)
        self.app.state.serving_tokens = ServingTokens(self.engine, models)
        self.app.exception_handler(VLLMClientError)(
            lambda _request, error: JSONResponse({"error": {"message": str(error)}}, status_code=400)
        )
        Routes(API, self.store, metrics, chosen).attach(self.app)

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def hash_of(ids: list[int]) -> str:
    return blake3(b"".join(number.to_bytes(4, "little") for number in ids)).hexdigest()
