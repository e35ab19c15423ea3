"""The HTTP routes under /inference/v1/prompt-handles."""

from __future__ import annotations

import functools
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import ValidationError

from promptseam_vllm import protocol
from promptseam_vllm.engine import Server
from promptseam_vllm.errors import (
    InvalidRequestError,
    PromptHandleError,
    PromptHandleMissError,
    PromptTooLargeError,
)
from promptseam_vllm.segments import BYTES_PER_TOKEN
from promptseam_vllm.store import Owner
from promptseam_vllm.turn import Turn, check_ids, read_prefix, reference

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from promptseam_vllm.engine import VllmApi
    from promptseam_vllm.metrics import Metrics
    from promptseam_vllm.protocol import PromptRef
    from promptseam_vllm.settings import Settings
    from promptseam_vllm.store import Handle, HandleStore

    Route = Callable[[Request], Awaitable[Response]]

PREFIX: Final = "/inference/v1/prompt-handles"
"""Under /inference, which vLLM's --api-key guards."""


class Routes:
    """What each route does."""

    def __init__(self, api: VllmApi, store: HandleStore, metrics: Metrics, settings: Settings) -> None:
        """Hold what all requests share."""
        self._api = api
        self._store = store
        self._metrics = metrics
        self._settings = settings
        self._run_chat = api.guard(self._chat)
        self._run_generate = api.guard(self._generate)

    def attach(self, app: FastAPI) -> None:
        """Register the routes."""
        routes: list[tuple[str, str, Route]] = [
            ("GET", "", self.capabilities),
            ("GET", "/stats", self.stats),
            ("POST", "/chat", self.chat),
            ("POST", "/generate", self.generate),
            ("POST", "/register", self.register),
            ("POST", "/lookup", self.lookup),
            ("POST", "/drop", self.drop),
        ]
        for method, path, route in routes:
            app.add_api_route(PREFIX + path, self._answering(route), methods=[method], response_model=None)

    async def capabilities(self, request: Request) -> Response:
        """Tell what this server takes."""
        server = self._server(request)
        return JSONResponse(
            {
                "promptseam": protocol.PROTOCOL_VERSION,
                "version": package_version(),
                "max_body_bytes": self._settings.max_body_bytes,
                "max_tokens": server.max_tokens,
                "models": server.models(),
            }
        )

    async def stats(self, request: Request) -> Response:
        """Tell what the asking tenant keeps in this process."""
        stats = self._store.stats(protocol.tenant_of(request))
        return JSONResponse(
            {
                "handles": stats.handles,
                "bytes": stats.bytes,
                "max_bytes": self._store.tenant_max_bytes,
                "ttl_seconds": self._store.ttl_seconds,
            }
        )

    async def chat(self, request: Request) -> Response:
        """Answer a chat completion whose prompt is a reference and appended ids."""
        return await self._run_chat(await self._json(request), request)  # type: ignore[no-any-return]

    async def generate(self, request: Request) -> Response:
        """Answer token ids with token ids, the prompt being a reference and appended ids."""
        return await self._run_generate(await self._json(request), request)  # type: ignore[no-any-return]

    async def register(self, request: Request) -> Response:
        """Keep a prompt that is sent now, for requests to come."""
        server = self._server(request)
        if protocol.content_type(request) == "application/octet-stream":
            ids = protocol.parse_binary_ids(await protocol.read_body(request, self._settings.max_body_bytes))
            model = protocol.optional_name(request.headers.get(protocol.MODEL_HEADER), protocol.MODEL_HEADER)
            salt = protocol.optional_name(request.headers.get(protocol.SALT_HEADER), protocol.SALT_HEADER)
        else:
            body = await self._json(request)
            ids = protocol.parse_ids(body.get("token_ids"), "token_ids")
            model, salt = _binding(body)
        check_ids(server, ids, before=0, param="token_ids")
        owner = Owner(protocol.tenant_of(request), server.model(model), salt)
        handle = self._store.put(owner, self._store.new_id(), base=None, prefix=b"", own=ids, token_hash=blake3(ids).hexdigest())
        if handle is None:
            raise PromptTooLargeError(self._store.tenant_max_bytes)
        return _ref_answer(handle)

    async def lookup(self, request: Request) -> Response:
        """Tell what is kept for a reference, or for an id alone."""
        body = await self._json(request)
        handle_id, ref = protocol.parse_handle(body.get("prompt_cache_ref"))
        handle = self._store.find(self._owner(request, *_binding(body)), handle_id)
        if ref is not None:
            read_prefix(handle, ref)
        return _ref_answer(handle)

    async def drop(self, request: Request) -> Response:
        """Forget a kept prompt."""
        body = await self._json(request)
        handle_id, _ = protocol.parse_handle(body.get("prompt_cache_ref"))
        self._store.drop(self._owner(request, *_binding(body)), handle_id)
        return JSONResponse({"dropped": True})

    async def _chat(self, body: dict[str, Any], request: Request) -> Response:
        ref, appended = _split(body)
        chat = _validated(self._api.chat_request, body)
        if chat.use_beam_search:
            raise InvalidRequestError("Beam search does not go with prompt handles.", "use_beam_search")
        if chat.truncate_prompt_tokens is not None:
            # vLLM would not truncate given ids, but count as if it had.
            raise InvalidRequestError("Truncation does not go with prompt handles.", "truncate_prompt_tokens")
        if "prompt_token_ids" in (chat.kv_transfer_params or {}):
            raise InvalidRequestError("The prompt is given twice.", "kv_transfer_params.prompt_token_ids")
        turn = self._turn(request, chat, ref, appended)
        # vLLM reads this member anew for each event; the first ones, which name the role and come once per choice, would hold the
        # whole prompt.
        wanted = chat.return_token_ids
        if chat.stream:
            chat.return_token_ids = None
        answer = await self._server(request).chat(chat, request, turn.sampled)

        def with_ids() -> None:
            chat.return_token_ids = wanted

        return self._answer(request, turn, answer, events_before=chat.n or 1, then=with_ids)

    async def _generate(self, body: dict[str, Any], request: Request) -> Response:
        ref, appended = _split(body)
        for member in ("token_ids", "features", "content_parts"):
            if body.get(member) is not None:
                raise InvalidRequestError(f"{member} does not go with prompt handles.", member)
        # vLLM wants at least one id here; the prompt itself takes its place without being validated number by number.
        generate = _validated(self._api.generate_request, {**body, "token_ids": [0]})
        # It asks for the prompt only: sampled ids come anyway.
        generate.return_token_ids = None
        turn = self._turn(request, generate, ref, appended)
        answer = await self._server(request).generate(generate, request, turn.sampled)
        return self._answer(request, turn, answer)

    def _turn(self, request: Request, checked: Any, ref: PromptRef | None, appended: bytes) -> Turn:  # noqa: ANN401
        """Build the prompt; everything that can be wrong with it is known after this, and the engine has not been asked."""
        owner = self._owner(request, checked.model, checked.cache_salt)
        handle = self._store.find(owner, ref.id) if ref is not None else None
        before = ref.token_count if ref is not None else 0
        check_ids(self._server(request), appended, before=before, param="append_token_ids")
        turn = Turn(self._store, owner, handle, ref, appended)
        if handle is not None:
            self._metrics.hit()
        self._metrics.prompted(reused=before, appended=len(appended) // BYTES_PER_TOKEN)
        return turn

    def _answer(
        self,
        request: Request,
        turn: Turn,
        answer: Any,  # noqa: ANN401
        *,
        events_before: int = 0,
        then: Callable[[], None] = lambda: None,
    ) -> Response:
        if isinstance(answer, self._api.error_response):
            return JSONResponse(answer.model_dump(), status_code=answer.error.code)  # type: ignore[attr-defined]
        headers = {protocol.REF_HEADER: turn.id}
        if hasattr(answer, "model_dump"):
            # Taken out before it is printed: nobody asked for the prompt.
            answer.prompt_token_ids = None
            return JSONResponse({**answer.model_dump(), "prompt_cache_ref": turn.keep()}, headers=headers)
        events = turn.stream(answer, after=events_before, then=then)
        interval = self._server(request).keep_alive_seconds()
        return StreamingResponse(self._api.keep_alive(events, interval), media_type="text/event-stream", headers=headers)

    def _server(self, request: Request) -> Server:
        return Server(self._api, request.app.state)

    def _owner(self, request: Request, model: str | None, salt: str | None) -> Owner:
        return Owner(
            protocol.tenant_of(request),
            self._server(request).model(protocol.optional_name(model, "model")),
            protocol.optional_name(salt, "cache_salt"),
        )

    async def _json(self, request: Request) -> dict[str, Any]:
        if protocol.content_type(request) != "application/json":
            raise InvalidRequestError("The content type must be application/json.")
        return protocol.parse_object(await protocol.read_body(request, self._settings.max_body_bytes))

    def _answering(self, route: Route) -> Route:
        """Turn the errors of this package into answers; vLLM's own go to vLLM's handlers."""

        @functools.wraps(route)
        async def answering(request: Request) -> Response:
            try:
                return await route(request)
            except PromptHandleMissError as miss:
                self._metrics.missed(miss.reason)
                return JSONResponse(miss.body(), status_code=miss.code)
            except PromptHandleError as error:
                return JSONResponse(error.body(), status_code=error.code)

        return answering


def package_version() -> str:
    """Give this package's version."""
    try:
        return version("promptseam-vllm")
    except PackageNotFoundError:
        # Run from its sources, as tests do.
        return "0.0.0"


def _split(body: dict[str, Any]) -> tuple[PromptRef | None, bytes]:
    """Take this protocol's two members out of a body."""
    value = body.pop("prompt_cache_ref", None)
    ref = protocol.parse_ref(value) if value is not None else None
    return ref, protocol.parse_ids(body.pop("append_token_ids", None), "append_token_ids")


def _binding(body: dict[str, Any]) -> tuple[str | None, str | None]:
    return (
        protocol.optional_name(body.get("model"), "model"),
        protocol.optional_name(body.get("cache_salt"), "cache_salt"),
    )


def _validated(model: Any, body: dict[str, Any]) -> Any:  # noqa: ANN401
    """Validate a body by vLLM's model, telling what is wrong without quoting it."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        raise InvalidRequestError(f"{first['msg']}{f' ({param})' if param else ''}", param) from None


def _ref_answer(handle: Handle) -> Response:
    return JSONResponse({"prompt_cache_ref": reference(handle).as_json()})
