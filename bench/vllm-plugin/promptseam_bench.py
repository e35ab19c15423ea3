"""The floor of `npm run bench:ttft`: what a time to first token costs when the engine is handed a list of ids it has ready.

An endpoint plugin for vLLM 0.32 (entry point group `vllm.endpoint_plugins`), for benchmarks only: whoever reaches the server can use it.
It also tells which ids the engine saw last, whatever way they came in.
"""
import hashlib
import itertools
from array import array

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from vllm import SamplingParams
from vllm.inputs import tokens_input

_numbers = itertools.count()


class BenchPlugin:
    name = "promptseam_bench"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self.engine = None
        self.ready: list[int] = []
        self.seen: list[int] = []

    def attach_router(self, app: FastAPI) -> None:
        app.add_api_route("/inference/bench/ready", self.put_ready, methods=["PUT"])
        app.add_api_route("/inference/bench/first_token", self.first_token, methods=["POST"])
        app.add_api_route("/inference/bench/seen", self.get_seen, methods=["GET"])

    async def init_state(self, engine_client, state, args) -> None:
        self.engine = engine_client
        generate = engine_client.generate

        def watched(prompt, *positional, **named):
            # A reference only: looking at the ids would cost the time that is measured.
            self.seen = prompt["prompt_token_ids"]
            return generate(prompt, *positional, **named)

        engine_client.generate = watched

    async def put_ready(self, request: Request) -> JSONResponse:
        """Keeps the ids of the body, little-endian 32-bit words."""
        ids = array("I", await request.body())
        self.ready = ids.tolist()
        return JSONResponse({"length": len(self.ready)})

    async def first_token(self, request: Request) -> JSONResponse:
        """Answers at the first token of the ids that are ready."""
        await request.body()
        outputs = self.engine.generate(
            tokens_input(self.ready),
            SamplingParams(max_tokens=1, temperature=0.0),
            f"bench-{next(_numbers)}",
        )
        async for output in outputs:
            return JSONResponse({"token_ids": list(output.outputs[0].token_ids)})
        return JSONResponse({"error": "no token"}, status_code=500)

    async def get_seen(self) -> JSONResponse:
        ids = array("I", self.seen)
        return JSONResponse({"length": len(ids), "sha256": hashlib.sha256(ids.tobytes()).hexdigest()})
