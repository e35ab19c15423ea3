from __future__ import annotations

import asyncio
import json

import pytest
from httpx import ASGITransport, AsyncClient
from standin import STOP, StandIn, hash_of

ROOT = "/inference/v1/prompt-handles"


class Http:
    """The application over HTTP, without a network."""

    def __init__(self, app) -> None:
        self.transport = ASGITransport(app, raise_app_exceptions=False)

    def request(self, method, path, **content):
        async def send():
            async with AsyncClient(transport=self.transport, base_url="http://test") as http:
                return await http.request(method, path, **content)

        return asyncio.run(send())

    def get(self, path, **content):
        return self.request("GET", path, **content)

    def post(self, path, **content):
        return self.request("POST", path, **content)


class Client:
    """Requests to a stand-in, and what a right client would send next."""

    def __init__(self, server: StandIn) -> None:
        self.server = server
        self.engine = server.engine
        self.http = Http(server.app)

    def post(self, route, body, tenant=None, **headers):
        headers |= {"x-promptseam-tenant": tenant} if tenant is not None else {}
        return self.http.post(f"{ROOT}/{route}", json=body, headers=headers)

    def chat(self, ref, append, script="", tenant=None, **members):
        body = {
            "messages": [{"role": "user", "content": "-"}],
            "prompt_cache_ref": ref,
            "append_token_ids": append,
            "vllm_xargs": {"script": script},
            **members,
        }
        return self.post("chat", body, tenant)

    def generate(self, ref, append, script="", tenant=None, **members):
        sampling = {"extra_args": {"script": script}, "n": members.pop("n", 1)}
        body = {"sampling_params": sampling, "prompt_cache_ref": ref, "append_token_ids": append, **members}
        return self.post("generate", body, tenant)

    def stats(self, tenant=""):
        return self.http.get(f"{ROOT}/stats", headers={"x-promptseam-tenant": tenant}).json()


def ref_to(handle_id, ids):
    return {"id": handle_id, "token_count": len(ids), "token_hash": hash_of(ids)}


def events(response):
    lines = response.text.split("\n\n")
    assert lines[-1] == ""
    assert lines[-2] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


@pytest.fixture
def client():
    return Client(StandIn())


@pytest.fixture(params=["chat", "generate"])
def surface(request, client):
    """Both ways to generate, where they promise the same."""
    return getattr(client, request.param)


__all__ = ["ROOT", "STOP", "Client", "events", "ref_to"]
