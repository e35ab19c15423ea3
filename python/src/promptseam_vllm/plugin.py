"""What vLLM loads: an endpoint plugin (vLLM 0.32, entry point group `vllm.endpoint_plugins`)."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final

from promptseam_vllm import engine
from promptseam_vllm.metrics import Metrics
from promptseam_vllm.routes import Routes
from promptseam_vllm.settings import Settings
from promptseam_vllm.store import HandleStore

if TYPE_CHECKING:
    from argparse import Namespace

    from fastapi import FastAPI
    from starlette.datastructures import State

_SWEEP_SECONDS: Final = 30.0
"""How long at most an expired prompt stays in memory of a server that nobody asks anything."""


class PromptHandlePlugin:
    """Adds the prompt-handle routes to a vLLM server that generates."""

    name = "promptseam"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        """Read the settings; a wrong one stops the plugin from loading."""
        self._settings = Settings.from_environment(os.environ)
        self._metrics = Metrics()
        self._store = HandleStore(
            max_bytes=self._settings.max_bytes,
            tenant_max_bytes=self._settings.tenant_max_bytes,
            ttl_seconds=self._settings.ttl_seconds,
            watcher=self._metrics,
        )

    def attach_router(self, app: FastAPI) -> None:
        """Register the routes, while the application is built."""
        Routes(engine.load(), self._store, self._metrics, self._settings).attach(app)

    async def init_state(self, engine_client: Any, state: State, args: Namespace) -> None:  # noqa: ANN401, ARG002 - vLLM's protocol
        """Start forgetting what expires, once the event loop runs. The routes find everything else in the application state."""
        loop = asyncio.get_running_loop()

        def sweep() -> None:
            self._store.expire()
            loop.call_later(min(_SWEEP_SECONDS, self._settings.ttl_seconds), sweep)

        sweep()
