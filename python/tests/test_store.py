"""What is kept, for how long, and what it costs."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from promptseam_vllm.errors import PromptHandleMissError
from promptseam_vllm.segments import SEGMENT_OVERHEAD
from promptseam_vllm.store import HANDLE_OVERHEAD, HandleStore, Owner

A = Owner("a", "m", None)
B = Owner("b", "m", None)


class Watcher:
    def __init__(self):
        self.handles = self.bytes = 0
        self.reasons = []

    def sized(self, handles, size):
        self.handles, self.bytes = handles, size

    def evicted(self, reason):
        self.reasons.append(reason)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def a_store(max_bytes=10**9, tenant_max_bytes=10**9, ttl_seconds=100.0):
    store = HandleStore(
        max_bytes=max_bytes, tenant_max_bytes=tenant_max_bytes, ttl_seconds=ttl_seconds, watcher=Watcher(), clock=Clock()
    )
    store.clock, store.watcher = store._clock, store._watcher
    return store


def put(store, owner, own, base=None, kept=0):
    prefix = base.segment.read(kept) if base else b""
    handle_id = store.new_id()
    return store.put(owner, handle_id, base=base.segment if base else None, prefix=prefix, own=own, token_hash="")


def cost(size, owner=A):
    return HANDLE_OVERHEAD + SEGMENT_OVERHEAD + size + len(owner.tenant) + len(owner.model)


def found(store, owner, handle):
    try:
        return store.find(owner, handle.id) is handle
    except PromptHandleMissError:
        return False


def test_ids_can_not_be_guessed():
    ids = {HandleStore.new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(handle_id) == 32 for handle_id in ids)


def test_the_least_recently_used_goes_first():
    store = a_store(max_bytes=3 * cost(400))
    first, second, third = (put(store, A, bytes(400)) for _ in range(3))
    assert found(store, A, first)
    fourth = put(store, A, bytes(400))
    assert [found(store, A, handle) for handle in (first, second, third, fourth)] == [True, False, True, True]
    assert store.watcher.reasons == ["bytes"]


def test_a_tenant_over_its_share_evicts_only_its_own():
    store = a_store(max_bytes=10 * cost(400), tenant_max_bytes=3 * cost(400))
    others = [put(store, B, bytes(400)) for _ in range(2)]
    for _ in range(50):
        put(store, A, bytes(400))
    assert store.stats("a").handles == 3
    assert all(found(store, B, handle) for handle in others)


def test_a_prompt_lives_until_it_was_not_used_for_its_time():
    store = a_store(ttl_seconds=100)
    used, unused = put(store, A, bytes(4)), put(store, A, bytes(4))
    store.clock.now = 99
    assert found(store, A, used)
    store.clock.now = 100
    assert not found(store, A, unused)
    assert found(store, A, used)
    store.clock.now = 200
    store.expire()
    assert (store.watcher.handles, store.watcher.bytes) == (0, 0)
    assert store.watcher.reasons == ["age", "age"]
    assert store._tenants == {}


def test_a_long_conversation_costs_its_longest_prompt():
    store = a_store()
    handle = put(store, A, bytes(112_000))
    for _ in range(30):
        handle = put(store, A, bytes(2000), base=handle, kept=handle.segment.length)
    assert store.stats("a").handles == 31
    assert store.stats("a").bytes == 112_000 + 30 * 2000 + 31 * cost(0)


def test_the_newest_of_a_conversation_outlives_those_it_was_built_on():
    limit = 2 * cost(3000)
    store = a_store(max_bytes=limit, tenant_max_bytes=limit)
    handle, text = put(store, A, bytes(1000)), bytes(1000)
    for number in range(1, 50):
        own = bytes([number]) * 100
        handle = put(store, A, own, base=handle, kept=len(text) - 60)
        text = text[: len(text) - 60] + own
        assert found(store, A, handle)
        assert handle.segment.read(len(text)) == text


def test_a_base_that_is_gone_by_the_end_of_the_turn_is_copied():
    store = a_store()
    base = put(store, A, b"abcd" * 10)
    store.drop(A, base.id)
    handle = put(store, A, b"efgh", base=base, kept=40)
    assert handle.segment.read(44) == b"abcd" * 10 + b"efgh"
    assert store.stats("a").bytes == cost(44)


def test_a_short_prefix_does_not_keep_a_long_prompt_alive():
    store = a_store()
    long = put(store, A, bytes(100_000))
    short = put(store, A, bytes(100), base=long, kept=100)
    store.drop(A, long.id)
    assert store.stats("a").bytes == cost(200)
    assert short.segment.parent is None


def test_chains_stay_short():
    store = a_store()
    handle = put(store, A, bytes(4))
    for _ in range(1000):
        handle = put(store, A, bytes(4), base=handle, kept=handle.segment.length)
    assert handle.segment.depth <= 64


def test_a_prompt_over_the_share_is_not_kept_and_evicts_nothing():
    store = a_store(tenant_max_bytes=5000)
    small = put(store, A, bytes(100))
    assert put(store, A, bytes(5000)) is None
    assert found(store, A, small)
    assert (store.watcher.handles, store.watcher.reasons) == (1, [])


def test_where_sharing_would_not_fit_a_copy_may():
    store = a_store(tenant_max_bytes=cost(2000))
    handle = put(store, A, bytes(500))
    for _ in range(4):
        handle = put(store, A, bytes(300), base=handle, kept=handle.segment.length)
        assert handle is not None
    assert handle.segment.length == 1700


def test_dropping_what_is_not_there_is_a_miss():
    store = a_store()
    handle = put(store, A, bytes(4))
    with pytest.raises(PromptHandleMissError):
        store.drop(B, handle.id)
    with pytest.raises(PromptHandleMissError):
        store.drop(A, "x")
    assert found(store, A, handle)


def test_it_is_a_map_with_a_limit_whatever_happens():
    """Against a plain dict of whole prompts: contents, counts and bytes, over random turns, drops and times."""
    rng = random.Random(11)
    store = a_store(max_bytes=60_000, tenant_max_bytes=25_000, ttl_seconds=5)
    owners = [Owner(tenant, model, salt) for tenant in "abc" for model in "mn" for salt in (None, "s")]
    texts = {}
    for step in range(4000):
        store.clock.now += rng.random()
        alive = list(store._entries)
        if alive and rng.random() < 0.1:
            key = rng.choice(alive)
            try:
                store.drop(key.owner, key.id)
            except PromptHandleMissError as miss:
                assert miss.reason == "expired"
            continue
        base, kept, owner = None, 0, rng.choice(owners)
        if alive and rng.random() < 0.8:
            key = rng.choice(alive)
            try:
                base, owner = store.find(key.owner, key.id), key.owner
            except PromptHandleMissError:
                continue
            kept = rng.randrange(1, base.segment.length + 1)
        own = rng.randbytes(rng.randrange(1, 3000))
        handle = put(store, owner, own, base=base, kept=kept)
        if handle is not None:
            texts[handle.id] = (texts[base.id][:kept] if base else b"") + own
        if step % 20 == 0:
            check(store, texts)
    assert {"bytes", "age"} <= set(store.watcher.reasons)
    store.clock.now += 1000
    store.expire()
    assert (store.watcher.handles, store.watcher.bytes, store._tenants) == (0, 0, {})


def check(store, texts):
    assert store.watcher.bytes <= 60_000
    for tenant in "abc":
        mine = {key: entry for key, entry in store._entries.items() if key.owner.tenant == tenant}
        segments, size = set(), 0
        for key, entry in mine.items():
            text = texts[key.id]
            assert entry.handle.segment.read(len(text)) == text
            assert entry.handle.segment.read(len(text) // 3) == text[: len(text) // 3]
            size += HANDLE_OVERHEAD + sum(len(part or "") for part in key.owner)
            segment = entry.handle.segment
            while segment is not None and segment not in segments:
                segments.add(segment)
                size += SEGMENT_OVERHEAD + len(segment.own)
                segment = segment.parent
        stats = store.stats(tenant)
        assert (stats.handles, stats.bytes) == (len(mine), size)
        assert size <= 25_000


def test_what_is_accounted_for_is_what_it_takes():
    store = a_store()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(2000):
        handle = put(store, Owner(f"tenant {number}", "m", f"salt {number}"), b"")
        for _ in range(3):
            put(store, Owner(f"tenant {number}", "m", f"salt {number}"), bytes(100), base=handle, kept=0)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert taken <= store.watcher.bytes
