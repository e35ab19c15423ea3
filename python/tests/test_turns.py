"""A conversation by handle: what the engine sees, and what is kept."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from conftest import ROOT, STOP, Client, events, ref_to
from standin import MAX_MODEL_LEN, VOCABULARY, StandIn, hash_of

MISS = {
    "error": {
        "message": "No prompt is kept for this reference. Send all token ids.",
        "type": "PromptHandleMiss",
        "param": None,
        "code": 404,
    }
}


def test_an_answer_names_prompt_and_sampled_ids(surface):
    answer = surface(None, [1, 2, 3], "10 11")
    assert answer.status_code == 200
    ref = answer.json()["prompt_cache_ref"]
    assert ref == ref_to(ref["id"], [1, 2, 3, 10, 11, STOP])
    assert answer.headers["x-promptseam-ref"] == ref["id"]


def test_a_stream_ends_with_the_reference_and_names_it_in_a_header(surface):
    answer = surface(None, [1, 2, 3], "10 11", stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    last = events(answer)[-1]
    assert last == {"prompt_cache_ref": ref_to(answer.headers["x-promptseam-ref"], [1, 2, 3, 10, 11, STOP])}


@pytest.mark.parametrize("stream", [False, True])
def test_the_engine_sees_exactly_the_prefix_and_what_is_appended(client, surface, stream):
    rng = random.Random(5)
    stored, handle = [], None
    for _ in range(30):
        kept = rng.randrange(len(stored) // 2, len(stored)) + 1 if stored else 0
        append = [rng.randrange(VOCABULARY) for _ in range(rng.randrange(1, 60))]
        script = [rng.randrange(VOCABULARY) for _ in range(rng.randrange(20))]
        ref = ref_to(handle, stored[:kept]) if handle else None
        answer = surface(ref, append, " ".join(map(str, script)), stream=stream)
        assert client.engine.prompts[-1] == stored[:kept] + append
        stored = stored[:kept] + append + [*script, STOP]
        member = events(answer)[-1] if stream else answer.json()
        handle = answer.headers["x-promptseam-ref"]
        assert member["prompt_cache_ref"] == ref_to(handle, stored)


def test_a_reference_can_be_continued_more_than_once(client, surface):
    ref = surface(None, [1, 2, 3], "10").json()["prompt_cache_ref"]
    assert surface(ref, [20], "").status_code == 200
    assert surface(ref, [30], "").status_code == 200
    assert client.engine.prompts[1:] == [[1, 2, 3, 10, STOP, 20], [1, 2, 3, 10, STOP, 30]]


@pytest.mark.parametrize("stream", [False, True])
def test_with_several_choices_the_first_is_kept(surface, stream):
    answer = surface(None, [1], "10 11", n=3, stream=stream)
    member = events(answer)[-1] if stream else answer.json()
    assert member["prompt_cache_ref"]["token_hash"] == hash_of([1, 10, 11, STOP])


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stream", [False, True])
def test_sampled_ids_are_returned_when_asked_for_and_the_prompt_never(client, stream, n):
    answer = client.chat(None, [5, 6, 7], "10 11", stream=stream, return_token_ids=True, n=n)
    parts = events(answer)[:-1] if stream else [answer.json()]
    assert all(part.get("prompt_token_ids") is None for part in parts)
    choices = [choice for part in parts for choice in part["choices"] if choice["index"] == 0]
    assert [number for choice in choices for number in choice.get("token_ids") or []] == [10, 11, STOP]


@pytest.mark.parametrize("stream", [False, True])
def test_generate_does_not_echo_the_prompt(client, stream):
    answer = client.generate(None, [5, 6, 7], "10", stream=stream, return_token_ids=True)
    parts = events(answer)[:-1] if stream else [answer.json()]
    assert all(part.get("prompt_token_ids") is None for part in parts)


def test_other_requests_are_not_watched(client):
    before = client.server.app.state.openai_serving_chat.__dict__.copy()
    client.chat(None, [1], "2")
    assert client.server.app.state.openai_serving_chat.__dict__ == before
    assert "generate" not in vars(client.engine)


def test_the_salt_reaches_the_engine(client, surface):
    ref = surface(None, [1], "", cache_salt="pepper").json()["prompt_cache_ref"]
    surface(ref, [2], "", cache_salt="pepper")
    assert client.engine.salts == ["pepper", "pepper"]


class TestMiss:
    @pytest.fixture
    def ref(self, surface):
        return surface(None, [1, 2, 3], "10", tenant="a", model="base", cache_salt="s").json()["prompt_cache_ref"]

    @pytest.mark.parametrize(
        "change",
        [
            {"tenant": "b"},
            {"tenant": None},
            {"model": "adapter"},
            {"model": "no such model"},
            {"cache_salt": "t"},
            {"cache_salt": None},
            {"ref": {"id": "x" * 32}},
            {"ref": {"id": "x" * 32, "token_count": 1}},
        ],
    )
    def test_what_is_not_the_askers_can_not_be_told_from_what_never_was(self, client, surface, ref, change):
        members = {"tenant": "a", "model": "base", "cache_salt": "s"} | {k: v for k, v in change.items() if k != "ref"}
        answer = surface(ref | change.get("ref", {}), [4], "", **members)
        assert answer.status_code == 404
        assert answer.json() == MISS
        assert len(client.engine.prompts) == 1

    @pytest.mark.parametrize("change", [{"token_count": 6}, {"token_count": 4}, {"token_hash": "0" * 64}, {"token_count": 2**70}])
    def test_a_wrong_count_or_hash_of_ones_own_is_said_to_be_one(self, client, surface, ref, change):
        answer = surface(ref | change, [4], "", tenant="a", model="base", cache_salt="s")
        expected = {"error": MISS["error"] | {"reason": "prefix_mismatch"}}
        too_long = change.get("token_count", 0) > MAX_MODEL_LEN
        assert answer.status_code == (400 if too_long else 404)
        assert too_long or answer.json() == expected
        assert len(client.engine.prompts) == 1

    def test_the_default_model_may_be_named_or_not(self, client, surface):
        ref = surface(None, [1], "").json()["prompt_cache_ref"]
        assert surface(ref, [2], "", model="base").status_code == 200

    def test_a_dropped_or_expired_handle_is_gone(self, client, surface):
        first = surface(None, [1], "").json()["prompt_cache_ref"]
        second = surface(None, [2], "").json()["prompt_cache_ref"]
        assert client.post("drop", {"prompt_cache_ref": {"id": first["id"]}}).json() == {"dropped": True}
        assert surface(first, [4], "").json() == MISS
        client.server.now = 3600.0
        assert surface(second, [4], "").json() == MISS

    def test_another_server_misses(self, surface, ref):
        restarted = Client(StandIn())
        assert restarted.chat(ref, [4], tenant="a", model="base", cache_salt="s").json() == MISS


class TestNothingHalf:
    @pytest.mark.parametrize("stream", [False, True])
    def test_an_aborted_choice_is_not_kept(self, client, surface, stream):
        answer = surface(None, [1], "10 abort", stream=stream)
        member = events(answer)[-1] if stream else answer.json()
        assert member["prompt_cache_ref"] is None
        assert client.stats()["handles"] == 0

    def test_a_failed_stream_keeps_nothing_and_says_so(self, client):
        answer = client.chat(None, [1], "10 fail", stream=True)
        assert [*map(list, events(answer)[-2:])] == [["error"], ["prompt_cache_ref"]]
        assert events(answer)[-1] == {"prompt_cache_ref": None}
        assert client.stats()["handles"] == 0

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("route", ["chat", "generate"])
    def test_a_client_that_leaves_aborts_the_engine_and_keeps_what_it_had(self, route, stream):
        client = Client(StandIn())
        ref = client.chat(None, [1, 2], "3").json()["prompt_cache_ref"]
        script = "10 wait"
        body = {"prompt_cache_ref": ref, "append_token_ids": [4], "stream": stream}
        body |= (
            {"messages": [], "vllm_xargs": {"script": script}}
            if route == "chat"
            else {"sampling_params": {"extra_args": {"script": script}}}
        )
        asyncio.run(leave(client, route, body))
        assert client.engine.aborted == 1
        assert client.stats()["handles"] == 1
        assert client.chat(ref, [5]).status_code == 200


async def leave(client, route, body):
    """Send a request, and go away while the engine works on it."""
    client.engine.waiting = asyncio.Event()
    messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive():
        if messages:
            return messages.pop()
        await client.engine.waiting.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        pass

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "path": f"{ROOT}/{route}",
        "raw_path": f"{ROOT}/{route}".encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await asyncio.wait_for(client.server.app(scope, receive, send), 5)


class TestWrongRequests:
    @pytest.mark.parametrize(
        "append",
        [
            None,
            [],
            {},
            "1",
            7,
            [True],
            [1, False],
            [1.0],
            ["1"],
            [None],
            [[1]],
            [-1],
            [2**32],
            [10**30],
            [VOCABULARY],
            [0, VOCABULARY, 1],
        ],
    )
    def test_ids_that_are_none(self, client, surface, append):
        ref = surface(None, [1], "").json()["prompt_cache_ref"]
        for reference in (None, ref):
            answer = surface(reference, append, "")
            assert answer.status_code == 400
            error = answer.json()["error"]
            assert (error["type"], error["code"], error["param"]) == ("BadRequestError", 400, "append_token_ids")
        assert len(client.engine.prompts) == 1

    @pytest.mark.parametrize(
        "ref",
        [
            [],
            "id",
            7,
            True,
            {},
            {"id": 1},
            {"id": ""},
            {"id": "x" * 2000},
            {"id": "x", "token_count": "3"},
            {"id": "x", "token_count": True},
            {"id": "x", "token_count": 0},
            {"id": "x", "token_count": -1},
            {"id": "x", "token_count": 1.5},
            {"id": "x", "token_count": 1},
            {"id": "x", "token_count": 1, "token_hash": 5},
            {"id": "x", "token_count": 1, "token_hash": "0" * 63},
            {"id": "x", "token_count": 1, "token_hash": "A" * 64},
            {"id": "x", "token_count": 1, "token_hash": "0" * 64 + "\n"},
        ],
    )
    def test_references_that_are_none(self, client, surface, ref):
        answer = surface(ref, [1], "")
        assert answer.status_code == 400
        assert answer.json()["error"]["param"].startswith("prompt_cache_ref")
        assert client.engine.prompts == []

    def test_a_prompt_over_the_context(self, client, surface):
        assert surface(None, [1] * MAX_MODEL_LEN, "").status_code == 200
        for ids in ([1] * (MAX_MODEL_LEN + 1), [1] * 1_000_000):
            answer = surface(None, ids, "")
            assert answer.status_code == 400
            assert "maximum context length" in answer.json()["error"]["message"]
        assert len(client.engine.prompts) == 1

    def test_prefix_and_appended_ids_together_over_the_context(self, client, surface):
        ref = surface(None, [1] * (MAX_MODEL_LEN - 10), "").json()["prompt_cache_ref"]
        assert surface(ref, [1] * 10, "").status_code == 400
        assert len(client.engine.prompts) == 1

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[]",
            b"7",
            b"\xff\xfe",
            b'{"append_token_ids": [1], "x": NaN}',
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b'{"append_token_ids": [' + b"9" * 10_000 + b"]}",
            b'{"append_token_ids": [1], "x": "\\ud800"}',
        ],
    )
    @pytest.mark.parametrize("route", ["chat", "generate", "register", "lookup", "drop"])
    def test_bodies_that_are_no_json_objects(self, client, route, body):
        answer = client.http.post(f"{ROOT}/{route}", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == 400

    @pytest.mark.parametrize("route", ["chat", "generate", "register", "lookup", "drop"])
    def test_a_body_that_is_too_long(self, route):
        client = Client(StandIn(max_body_bytes=100))
        answer = client.post(route, {"x": "y" * 100})
        assert answer.status_code == 413
        assert answer.json()["error"]["type"] == "PayloadTooLargeError"

    def test_a_body_of_another_type(self, client):
        answer = client.http.post(f"{ROOT}/chat", content=b"{}", headers={"content-type": "text/plain"})
        assert answer.status_code == 400

    def test_the_servers_own_checks_do_not_quote_the_request(self, client):
        answer = client.chat(None, [1], "", messages="a secret")
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "messages"
        assert "secret" not in answer.text

    @pytest.mark.parametrize("members", [{"model": 5}, {"model": "m" * 2000}, {"cache_salt": 5}, {"cache_salt": "s" * 2000}])
    def test_names_that_are_none(self, surface, members):
        assert surface(None, [1], "", **members).status_code == 400

    def test_a_tenant_that_is_too_long(self, surface):
        assert surface(None, [1], "", tenant="t" * 2000).status_code == 400

    @pytest.mark.parametrize(
        "members",
        [
            {"use_beam_search": True},
            {"echo": True},
            {"truncate_prompt_tokens": 5},
            {"kv_transfer_params": {"prompt_token_ids": [1]}},
        ],
    )
    def test_chat_requests_that_need_another_prompt_than_ids(self, client, members):
        assert client.chat(None, [1], "", **members).status_code == 400
        assert client.engine.prompts == []

    @pytest.mark.parametrize("members", [{"token_ids": [1]}, {"features": {}}, {"content_parts": []}])
    def test_generate_requests_with_a_prompt_of_their_own(self, client, members):
        assert client.generate(None, [1], "", **members).status_code == 400

    def test_other_transfer_parameters_are_left_alone(self, client):
        assert client.chat(None, [1], "", kv_transfer_params={"x": 1}).status_code == 200

    def test_an_unknown_model_is_the_servers_own_error(self, client, surface):
        answer = surface(None, [1], "", model="other")
        assert answer.status_code == 404
        assert answer.json()["error"]["type"] == "NotFoundError"
        assert client.stats()["handles"] == 0

    def test_a_server_that_does_not_generate(self, client, surface):
        client.server.app.state.openai_serving_chat = None
        client.server.app.state.serving_tokens = None
        assert surface(None, [1], "").status_code == 501
