"""Which streams begin with the last ids only."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from promptseam_vllm.detokenizer import TAIL, patch, primed_with_the_tail, tail_will_do

LONG = list(range(1000))


@pytest.fixture
def decoders():
    module = SimpleNamespace(DecodeStream=lambda ids=None, skip_special_tokens=False: (ids, skip_special_tokens))
    patch(module)
    patched = module.DecodeStream
    patch(module)
    assert module.DecodeStream is patched
    return module


def test_streams_are_as_they_were_outside(decoders):
    assert decoders.DecodeStream(ids=LONG, skip_special_tokens=True) == (LONG, True)
    with primed_with_the_tail(allowed=False):
        assert decoders.DecodeStream(ids=LONG) == (LONG, False)
    assert decoders.DecodeStream() == (None, False)


def test_streams_within_begin_with_the_tail_in_tasks_too(decoders):
    async def turn():
        async def begin():
            await asyncio.sleep(0)
            return decoders.DecodeStream(ids=LONG, skip_special_tokens=True)

        with primed_with_the_tail(allowed=True):
            task = asyncio.ensure_future(begin())
        # Behind it, while the task still runs.
        assert decoders.DecodeStream(ids=LONG) == (LONG, False)
        return await task

    assert asyncio.run(turn()) == (LONG[-TAIL:], True)


def tokenizer(kind="ByteLevel", text="text", plain="text"):
    def decode(ids, *, skip_special_tokens):
        assert len(ids) <= TAIL
        return plain if skip_special_tokens else text

    decoder = SimpleNamespace(__getstate__=lambda: json.dumps({"type": kind}).encode())
    return SimpleNamespace(_tokenizer=SimpleNamespace(decoder=decoder, decode=decode))


def test_the_tail_does_where_bytes_are_decoded_and_whole():
    assert tail_will_do(tokenizer(), LONG)


@pytest.mark.parametrize(
    "other",
    [
        None,
        SimpleNamespace(_tokenizer=object()),
        tokenizer(kind="Metaspace"),
        tokenizer(text="cut \ufffd"),
        tokenizer(plain="cut \ufffd"),
        tokenizer(plain=""),
    ],
)
def test_and_not_elsewhere(other):
    assert not tail_will_do(other, LONG)
