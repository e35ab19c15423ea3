"""The routes that keep and name prompts without generating, and what can be asked about a server."""

from __future__ import annotations

from array import array

import pytest
from conftest import ROOT, Client, ref_to
from standin import MAX_MODEL_LEN, VOCABULARY, StandIn
from test_turns import MISS


def register(client, body, **headers):
    headers = {"content-type": "application/octet-stream", **headers}
    return client.http.post(f"{ROOT}/register", content=body, headers=headers)


def test_capabilities(client):
    answer = client.http.get(ROOT)
    assert answer.status_code == 200
    told = answer.json()
    assert isinstance(told.pop("version"), str)
    assert told == {
        "promptseam": 1,
        "max_body_bytes": 16 * 1024 * 1024,
        "max_tokens": MAX_MODEL_LEN,
        "models": ["base", "adapter"],
    }


def test_a_prompt_can_be_registered_as_bytes_or_as_json(client, surface):
    for answer in (register(client, array("I", [1, 2, 3]).tobytes()), client.post("register", {"token_ids": [1, 2, 3]})):
        ref = answer.json()["prompt_cache_ref"]
        assert ref == ref_to(ref["id"], [1, 2, 3])
        assert surface(ref, [4], "").status_code == 200
        assert client.engine.prompts[-1] == [1, 2, 3, 4]


def test_registered_bytes_are_bound_by_headers(client, surface):
    headers = {"x-promptseam-tenant": "a", "x-promptseam-model": "adapter", "x-promptseam-cache-salt": "s"}
    ref = register(client, b"\1\0\0\0", **headers).json()["prompt_cache_ref"]
    assert surface(ref, [2], "", tenant="a", model="adapter", cache_salt="s").status_code == 200
    assert surface(ref, [2], "", tenant="a", model="base", cache_salt="s").json() == MISS
    assert surface(ref, [2], "", tenant="a", model="adapter").json() == MISS


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\1",
        b"\1\0\0",
        b"\1\0\0\0\2",
        b"\xff\xff\xff\xff",
        VOCABULARY.to_bytes(4, "little"),
        b"\1\0\0\0" * (MAX_MODEL_LEN + 1),
        b"\1\0\0\0" * 1_000_000,
    ],
)
def test_bytes_that_are_no_prompt(client, body):
    answer = register(client, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "token_ids"
    assert client.stats()["handles"] == 0


def test_a_prompt_of_more_bytes_than_a_tenant_may_keep():
    client = Client(StandIn(max_bytes=8192, tenant_max_bytes=4096))
    assert register(client, b"\1\0\0\0" * 1000).status_code == 413
    # A turn of it is answered all the same.
    answer = client.chat(None, [1] * 1000, "2")
    assert answer.status_code == 200
    assert answer.json()["prompt_cache_ref"] is None


def test_lookup_names_the_whole_and_checks_a_prefix(client):
    whole = client.post("register", {"token_ids": [1, 2, 3]}).json()["prompt_cache_ref"]
    for asked in ({"id": whole["id"]}, whole, ref_to(whole["id"], [1, 2])):
        answer = client.post("lookup", {"prompt_cache_ref": asked})
        assert answer.status_code == 200
        assert answer.json() == {"prompt_cache_ref": whole}
    assert client.post("lookup", {"prompt_cache_ref": whole}, tenant="b").json() == MISS
    wrong = client.post("lookup", {"prompt_cache_ref": ref_to(whole["id"], [1, 3])})
    assert wrong.json()["error"]["reason"] == "prefix_mismatch"
    assert client.post("lookup", {"prompt_cache_ref": {"id": "x", "token_count": 1}}).status_code == 400


def test_only_the_owner_drops(client):
    ref = client.post("register", {"token_ids": [1], "cache_salt": "s"}, tenant="a").json()["prompt_cache_ref"]
    by_id = {"prompt_cache_ref": {"id": ref["id"]}}
    for tenant, salt in (("b", "s"), ("a", None)):
        assert client.post("drop", by_id | {"cache_salt": salt}, tenant=tenant).json() == MISS
    assert client.post("drop", by_id | {"cache_salt": "s"}, tenant="a").status_code == 200
    assert client.post("drop", by_id | {"cache_salt": "s"}, tenant="a").json() == MISS


def test_stats_are_the_askers_own(client):
    client.post("register", {"token_ids": [1, 2]}, tenant="a")
    client.post("register", {"token_ids": [1, 2]}, tenant="a")
    client.post("register", {"token_ids": [1, 2]}, tenant="b")
    assert client.stats("a")["handles"] == 2
    assert client.stats("a")["bytes"] == 2 * client.stats("b")["bytes"] > 0
    assert client.stats("c") == {"handles": 0, "bytes": 0, "max_bytes": 128 * 1024 * 1024, "ttl_seconds": 3600.0}


def test_metrics_tell_of_the_whole_process(client, surface):
    ref = surface(None, [1, 2, 3], "10", tenant="a").json()["prompt_cache_ref"]
    surface(ref, [4, 5], "", tenant="a")
    surface(ref, [4, 5], "", tenant="b")
    surface(ref | {"token_hash": "0" * 64}, [4, 5], "", tenant="a")
    client.server.now = 10_000.0
    surface(ref, [4, 5], "", tenant="a")
    metric = client.server.metric
    assert metric("promptseam_hits_total") == 1
    assert metric("promptseam_misses_total", reason="unknown") == 1
    assert metric("promptseam_misses_total", reason="prefix_mismatch") == 1
    assert metric("promptseam_misses_total", reason="expired") == 1
    assert metric("promptseam_evictions_total", reason="age") == 2
    assert metric("promptseam_reused_tokens_total") == 5
    assert metric("promptseam_appended_tokens_total") == 5
    assert metric("promptseam_handles") == 0
    assert metric("promptseam_handle_bytes") == 0
    surface(None, [1], "", tenant="a")
    assert metric("promptseam_handles") == 1
    assert metric("promptseam_handle_bytes") == client.stats("a")["bytes"] > 0
