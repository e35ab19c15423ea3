from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


@pytest.fixture(scope="session")
def url():
    """A real vLLM 0.32 with Qwen3 and the plugin, as scripts/vllm/serve.sh starts it."""
    value = os.environ.get("PROMPTSEAM_VLLM_URL")
    if value is None:
        pytest.skip("PROMPTSEAM_VLLM_URL names no server")
    return value


@pytest.fixture(scope="session")
def second_url():
    """The server that was started after the first one's end, with two API server processes and the key `secret`."""
    value = os.environ.get("PROMPTSEAM_VLLM_SECOND_URL")
    if value is None:
        pytest.skip("PROMPTSEAM_VLLM_SECOND_URL names no server")
    return value
