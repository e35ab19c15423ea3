"""What vLLM asks of an endpoint plugin, and what an operator can set."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from standin import API

import promptseam_vllm
from promptseam_vllm import engine, plugin
from promptseam_vllm.metrics import Metrics
from promptseam_vllm.settings import Settings
from promptseam_vllm.store import Owner

MIB = 1024 * 1024


@pytest.fixture
def loaded(monkeypatch):
    monkeypatch.setattr(engine, "load", lambda: API)
    monkeypatch.setattr(plugin, "Metrics", lambda: Metrics(CollectorRegistry()))
    return promptseam_vllm.PromptHandlePlugin()


def test_it_is_an_endpoint_plugin(loaded):
    assert loaded.name == "promptseam"
    assert loaded.required_tasks == ("generate",)
    app = FastAPI()
    loaded.attach_router(app)
    paths = {(method, route.path) for route in app.routes for method in route.methods if "prompt-handles" in route.path}
    root = "/inference/v1/prompt-handles"
    posts = {("POST", f"{root}/{name}") for name in ("chat", "generate", "register", "lookup", "drop")}
    assert paths == posts | {("GET", root), ("GET", f"{root}/stats")}


def test_prompts_expire_in_a_server_that_nobody_asks(loaded, monkeypatch):
    monkeypatch.setattr(plugin, "_SWEEP_SECONDS", 0.01)
    now = [0.0]
    monkeypatch.setattr(loaded._store, "_clock", lambda: now[0])

    async def run():
        await loaded.init_state(None, SimpleNamespace(), SimpleNamespace())
        loaded._store.put(Owner("", "m", None), "id", base=None, prefix=b"", own=b"\0\0\0\0", token_hash="")
        await asyncio.sleep(0.05)
        assert loaded._store.stats("").handles == 1
        now[0] = 3600.0
        await asyncio.sleep(0.05)
        assert loaded._store.stats("").handles == 0

    asyncio.run(run())


def test_importing_the_package_does_not_import_vllm():
    code = "import sys; sys.modules['vllm'] = None; import promptseam_vllm"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_settings_have_defaults():
    settings = Settings.from_environment({})
    assert settings == Settings(512 * MIB, 128 * MIB, 3600.0, 16 * MIB)


def test_settings_come_from_the_environment():
    settings = Settings.from_environment(
        {
            "PROMPTSEAM_MAX_BYTES": "1000",
            "PROMPTSEAM_TENANT_MAX_BYTES": "500",
            "PROMPTSEAM_TTL_SECONDS": "1.5",
            "PROMPTSEAM_MAX_BODY_BYTES": "10",
        }
    )
    assert settings == Settings(1000, 500, 1.5, 10)
    assert Settings.from_environment({"PROMPTSEAM_MAX_BYTES": "1000"}).tenant_max_bytes == 250


@pytest.mark.parametrize(
    ("name", "value"),
    [("MAX_BYTES", "0"), ("MAX_BYTES", "much"), ("TTL_SECONDS", "-1"), ("MAX_BODY_BYTES", "inf"), ("TENANT_MAX_BYTES", "1e12")],
)
def test_a_wrong_setting_is_named(name, value):
    with pytest.raises(ValueError, match=f"PROMPTSEAM_{name}"):
        Settings.from_environment({f"PROMPTSEAM_{name}": value})
