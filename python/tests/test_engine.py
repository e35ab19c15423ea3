"""What is put between vLLM's serving objects and its engine."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace

from standin import STOP, Engine, RequestOutputKind

from promptseam_vllm.engine import _WatchedEngine
from promptseam_vllm.sampled import Sampled

IDS = [1, 2, 3]


def begin(engine: Engine, script: list[int | str]):
    """Give the outputs of a request, which nobody asked for yet."""
    sampled = Sampled(IDS)
    params = SimpleNamespace(output_kind=RequestOutputKind.DELTA, script=script, n=1)
    outputs = _WatchedEngine(engine, sampled, short=False).generate({"prompt_token_ids": IDS}, params, "request")
    return sampled, outputs


def test_the_engine_is_asked_before_anybody_reads():
    async def turn():
        engine = Engine()
        sampled, outputs = begin(engine, [5, 6])
        await asyncio.sleep(0)
        assert engine.prompts == [IDS]
        assert sampled.ids().tolist() == []
        assert len([output async for output in outputs]) == 3
        assert sampled.ids().tolist() == [5, 6, STOP]
        assert engine.aborted == 0

    asyncio.run(turn())


def test_what_nobody_reads_is_aborted():
    async def turn():
        engine = Engine()
        _, outputs = begin(engine, ["wait"])
        await engine.waiting.wait()
        del outputs
        gc.collect()
        await asyncio.sleep(0.01)
        assert engine.aborted == 1

    asyncio.run(turn())


def test_who_stops_waiting_aborts():
    async def turn():
        engine = Engine()
        _, outputs = begin(engine, ["wait"])
        reading = asyncio.ensure_future(anext(outputs))
        await engine.waiting.wait()
        reading.cancel()
        await asyncio.wait([reading])
        assert reading.cancelled()
        assert engine.aborted == 1

    asyncio.run(turn())


def test_who_leaves_between_two_outputs_aborts():
    async def turn():
        engine = Engine()
        _, outputs = begin(engine, [5, "wait"])
        await anext(outputs)
        await outputs.aclose()
        assert engine.aborted == 1

    asyncio.run(turn())
