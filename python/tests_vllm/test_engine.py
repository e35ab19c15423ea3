"""The plugin in a real vLLM server."""

from __future__ import annotations

import json
import os
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from standin import hash_of

ROOT = "/inference/v1/prompt-handles"
BLOCK = 128
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "read_file",
            "description": "Read a file",
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
        },
    }
]
MISS = {
    "message": "No prompt is kept for this reference. Send all token ids.",
    "type": "PromptHandleMiss",
    "param": None,
    "code": 404,
}


class Server:
    def __init__(self, url, key=None):
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=120)

    def post(self, path, body, **headers):
        return self.http.post(path, json=body, headers=headers)

    def encode(self, text):
        return self.post("/tokenize", {"model": "qwen3", "prompt": text, "add_special_tokens": False}).json()["tokens"]

    def render(self, messages):
        answer = self.post("/v1/chat/completions/render", {"model": "qwen3", "messages": messages, "tools": TOOLS})
        return answer.json()["token_ids"]

    def chat(self, ref, append, script, tenant="t", **members):
        body = chat_body(ref, append, script, **members)
        return self.post(f"{ROOT}/chat", body, **{"x-promptseam-tenant": tenant})

    def metric(self, name, **labels):
        wanted = name + ("{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}" if labels else "")
        lines = self.http.get("/metrics").text.splitlines()
        return sum(float(line.split(" ")[1]) for line in lines if line.startswith(f"{wanted} "))

    def seen(self, ids):
        """How many of these ids the engine has in its prefix cache, and what it samples after them."""
        body = {"model": "qwen3", "prompt": ids, "max_tokens": 6, "temperature": 0, "return_token_ids": True}
        answer = self.post("/v1/completions", body).json()
        return answer["usage"]["prompt_tokens_details"]["cached_tokens"], answer["choices"][0]["token_ids"]


def chat_body(ref, append, script, **members):
    return {
        "model": "qwen3",
        "messages": [{"role": "user", "content": "-"}],
        "tools": TOOLS,
        "prompt_cache_ref": ref,
        "append_token_ids": append,
        "max_tokens": 200,
        "temperature": 0,
        "vllm_xargs": {"script": " ".join(map(str, script))} if script else None,
        **members,
    }


def events(answer):
    assert answer.status_code == 200, answer.text
    lines = answer.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def common(left, right):
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def ref_to(ref, ids):
    return {"id": ref["id"], "token_count": len(ids), "token_hash": hash_of(ids)}


@pytest.fixture(scope="module")
def server(url):
    return Server(url)


def long_history():
    system = "You are a careful engineer.\n" + "\n".join(f"Rule {i}: check the result of step {i * 7}." for i in range(200))
    return [{"role": "system", "content": system}, {"role": "user", "content": "Read a.txt, then b.txt."}]


def test_capabilities(server):
    told = server.http.get(ROOT).json()
    assert told["promptseam"] == 1
    assert told["models"] == ["qwen3"]
    assert told["max_tokens"] == 200_000
    assert told["version"] != "0.0.0"


@pytest.mark.parametrize("stream", [False, True])
def test_an_agent_session_by_handle(server, stream):
    """Tools, reasoning and several turns: the engine gets what the server itself would have rendered."""
    messages, ref, stored = long_history(), None, []
    for turn in range(5):
        prompt = server.render(messages)
        kept = common(stored, prompt)
        append = prompt[kept:]
        assert turn == 0 or kept > len(stored) // 2
        thought = f"The next file is {turn}.txt."
        call = json.dumps({"name": "read_file", "arguments": {"path": f"{turn}-{stream}.txt"}})
        script = server.encode(f"<think>\n{thought}\n</think>\n\n<tool_call>\n{call}\n</tool_call><|im_end|>")
        options = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}} if stream else {}
        answer = server.chat(ref_to(ref, stored[:kept]) if ref else None, append, script, return_token_ids=True, **options)
        if stream:
            parts = events(answer)
            ref = parts.pop()["prompt_cache_ref"]
            assert all(part.get("prompt_token_ids") is None for part in parts)
            assert parts[0]["usage"]["prompt_tokens"] == len(prompt)
            usage = parts[-1]["usage"]
            choices = [choice for part in parts for choice in part["choices"]]
            sampled = [number for choice in choices for number in choice.get("token_ids") or []]
            reasoning = "".join(choice["delta"].get("reasoning") or "" for choice in choices)
            calls = [call for choice in choices for call in choice["delta"].get("tool_calls") or []]
            arguments = "".join(call["function"].get("arguments") or "" for call in calls)
            names = [call["function"]["name"] for call in calls if call["function"].get("name")]
            finish = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
        else:
            body = answer.json()
            ref, usage = body["prompt_cache_ref"], body["usage"]
            (choice,) = body["choices"]
            assert body["prompt_token_ids"] is None
            sampled, reasoning, finish = choice["token_ids"], choice["message"]["reasoning"], [choice["finish_reason"]]
            (parsed,) = choice["message"]["tool_calls"]
            names, arguments = [parsed["function"]["name"]], parsed["function"]["arguments"]
        assert sampled == script
        assert usage["prompt_tokens"] == len(prompt)
        assert (names, json.loads(arguments), finish) == (["read_file"], {"path": f"{turn}-{stream}.txt"}, ["tool_calls"])
        assert reasoning.strip() == thought
        stored = prompt + sampled
        assert ref == ref_to(ref, stored)
        assert answer.headers["x-promptseam-ref"] == ref["id"]
        if turn > 0:
            # The prefix was in the engine's cache, from the turn before.
            assert usage["prompt_tokens_details"]["cached_tokens"] >= (kept // BLOCK - 1) * BLOCK
        cached, _ = server.seen(prompt)
        assert cached == (len(prompt) - 1) // BLOCK * BLOCK
        messages += [
            {
                "role": "assistant",
                "content": "",
                "reasoning": thought,
                "tool_calls": [
                    {"id": f"call_{turn}", "type": "function", "function": {"name": "read_file", "arguments": arguments}}
                ],
            },
            {"role": "tool", "tool_call_id": f"call_{turn}", "content": f"This is file {turn}."},
        ]


@pytest.mark.parametrize("route", ["chat", "generate"])
def test_the_engine_computes_on_prefix_and_appended_ids(server, route):
    """What it samples after a handle is what it samples after the same ids sent whole; so is what it samples after the answer."""
    ids = server.render(long_history())
    kept = server.post(f"{ROOT}/register", {"model": "qwen3", "token_ids": ids[:1000]}).json()["prompt_cache_ref"]
    body = {"model": "qwen3", "prompt_cache_ref": kept, "append_token_ids": ids[1000:]}
    if route == "chat":
        body |= {"messages": [{"role": "user", "content": "-"}], "max_tokens": 6, "temperature": 0, "return_token_ids": True}
    else:
        body |= {"sampling_params": {"max_tokens": 6, "temperature": 0}}
    answer = server.post(f"{ROOT}/{route}", body).json()
    sampled = answer["choices"][0]["token_ids"]
    assert sampled == server.seen(ids)[1]
    assert answer["prompt_cache_ref"] == ref_to(answer["prompt_cache_ref"], ids + sampled)
    body |= {"prompt_cache_ref": answer["prompt_cache_ref"], "append_token_ids": ids[500:600]}
    again = server.post(f"{ROOT}/{route}", body).json()
    assert again["choices"][0]["token_ids"] == server.seen(ids + sampled + ids[500:600])[1]


def test_generate_streams(server):
    body = {
        "prompt_cache_ref": None,
        "append_token_ids": list(range(100, 300)),
        "sampling_params": {"extra_args": {"script": "5 6 151645"}},
        "stream": True,
        "return_token_ids": True,
    }
    answer = server.post(f"{ROOT}/generate", body)
    *parts, last = events(answer)
    assert "prompt_token_ids" not in answer.text
    sampled = [number for part in parts for choice in part["choices"] for number in choice["token_ids"]]
    assert sampled == [5, 6, 151645]
    assert last["prompt_cache_ref"] == ref_to(last["prompt_cache_ref"], [*range(100, 300), *sampled])


def test_several_choices_logprobs_and_structured_output(server):
    answer = server.chat(None, [1, 2, 3], [220, 221, 151645], n=3, temperature=1, logprobs=True, return_tokens_as_token_ids=True)
    body = answer.json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    logprobs = body["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in logprobs] == ["token_id:220", "token_id:221", "token_id:151645"]
    assert body["prompt_cache_ref"]["token_hash"] == hash_of([1, 2, 3, 220, 221, 151645])
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": False}
    answer = server.chat(
        None,
        server.render([{"role": "user", "content": "JSON"}]),
        None,
        tools=None,
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema}},
        chat_template_kwargs={"enable_thinking": False},
    )
    assert answer.status_code == 200
    assert answer.json()["prompt_cache_ref"] is not None


@pytest.mark.parametrize("n", [1, 2])
def test_a_stream_with_ids_holds_all_that_was_sampled_and_no_prompt(server, n):
    script = server.encode("<think>\nShort.\n</think>\n\nDone.<|im_end|>")
    answer = server.chat(None, list(range(500)), script, stream=True, n=n, temperature=1, return_token_ids=True)
    *parts, last = events(answer)
    assert [part["prompt_token_ids"] for part in parts if part.get("prompt_token_ids")] == []
    for index in range(n):
        choices = [choice for part in parts for choice in part["choices"] if choice["index"] == index]
        assert [number for choice in choices for number in choice.get("token_ids") or []] == script
    assert last["prompt_cache_ref"]["token_hash"] == hash_of([*range(500), *script])


def test_another_salt_is_another_cache(server):
    ids = list(range(2000, 2600))
    first = server.chat(None, ids, [220], max_tokens=1, cache_salt="one").json()
    same = server.chat(first["prompt_cache_ref"], ids, [220], max_tokens=1, cache_salt="one").json()
    assert same["usage"]["prompt_tokens_details"]["cached_tokens"] >= 512
    other = server.chat(None, ids, [220], max_tokens=1, cache_salt="two").json()
    assert (other["usage"]["prompt_tokens_details"] or {}).get("cached_tokens", 0) == 0
    assert server.chat(first["prompt_cache_ref"], [1], [220], cache_salt="two").status_code == 404


def test_misses_are_typed_and_counted_and_run_nothing(server):
    ref = server.chat(None, [1, 2, 3], [220, 151645]).json()["prompt_cache_ref"]
    before = server.metric("promptseam_misses_total", reason="unknown")
    requests = server.metric("vllm:prompt_tokens_total", engine="0", model_name="qwen3")
    for answer in (
        server.chat(ref, [4], [], tenant="other"),
        server.chat(ref | {"id": "x" * 32}, [4], []),
        server.chat(ref, [4], [], cache_salt="s"),
        server.chat(ref, [4], [], model="nothing"),
    ):
        assert (answer.status_code, answer.json()) == (404, {"error": MISS})
    wrong = server.chat(ref | {"token_hash": "0" * 64}, [4], [])
    assert (wrong.status_code, wrong.json()) == (404, {"error": MISS | {"reason": "prefix_mismatch"}})
    assert server.metric("promptseam_misses_total", reason="unknown") == before + 4
    assert server.metric("vllm:prompt_tokens_total", engine="0", model_name="qwen3") == requests


def test_wrong_requests_are_typed(server):
    for answer in (
        server.chat(None, [], []),
        server.chat(None, [True], []),
        server.chat(None, [200_000], []),
        server.chat(None, [1] * 200_001, []),
        server.chat(None, [1] * 1_000_000, []),
        server.chat(None, [1], [], messages=None),
        server.chat(None, [1], [], echo=True),
        server.chat(None, [1], [], use_beam_search=True),
        server.chat(None, [1], [], temperature=-1),
        server.chat(None, [1], [], tool_choice={"type": "function", "function": {"name": "other"}}),
        server.chat(None, [1] * 200_000, []),
        server.chat(None, [1], [], cache_salt=""),
        server.chat(
            None, [1], [], messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
        ),
        server.chat({"id": "x"}, [1], []),
        server.http.post(f"{ROOT}/register", content=b"\1\2\3", headers={"content-type": "application/octet-stream"}),
        server.http.post(f"{ROOT}/chat", content=b"{", headers={"content-type": "application/json"}),
        server.post(f"{ROOT}/generate", {"append_token_ids": [1]}),
    ):
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["code"] == 400
    unknown = server.chat(None, [1], [], model="nothing")
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "NotFoundError")


def test_a_client_that_leaves_aborts_the_engine(server):
    ref = server.chat(None, [1, 2, 3], [220, 151645], tenant="leaving").json()["prompt_cache_ref"]
    for stream in (True, False):
        body = chat_body(ref, [4], [220] * 50_000, max_tokens=50_000, stream=stream)
        try:
            with server.http.stream(
                "POST", f"{ROOT}/chat", json=body, headers={"x-promptseam-tenant": "leaving"}, timeout=3
            ) as answer:
                next(answer.iter_lines())
                running = server.metric("vllm:num_requests_running", engine="0", model_name="qwen3")
        except httpx.ReadTimeout:
            running = 1
        assert running == 1
        deadline = time.monotonic() + 10
        while server.metric("vllm:num_requests_running", engine="0", model_name="qwen3") and time.monotonic() < deadline:
            time.sleep(0.2)
        assert server.metric("vllm:num_requests_running", engine="0", model_name="qwen3") == 0
    stats = server.http.get(f"{ROOT}/stats", headers={"x-promptseam-tenant": "leaving"}).json()
    assert stats["handles"] == 1
    assert server.chat(ref, [5], [220, 151645], tenant="leaving").status_code == 200


def test_register_lookup_drop_and_stats(server):
    headers = {"content-type": "application/octet-stream", "x-promptseam-tenant": "r", "x-promptseam-model": "qwen3"}
    ids = list(range(30_000))
    ref = server.http.post(f"{ROOT}/register", content=array("I", ids).tobytes(), headers=headers).json()["prompt_cache_ref"]
    assert ref == ref_to(ref, ids)
    mine = {"x-promptseam-tenant": "r"}
    assert (
        server.post(f"{ROOT}/lookup", {"model": "qwen3", "prompt_cache_ref": {"id": ref["id"]}}, **mine).json()[
            "prompt_cache_ref"
        ]
        == ref
    )
    stats = server.http.get(f"{ROOT}/stats", headers=mine).json()
    assert stats["handles"] == 1
    assert 120_000 < stats["bytes"] < 122_000
    assert server.post(f"{ROOT}/drop", {"prompt_cache_ref": {"id": ref["id"]}}, **mine).json() == {"dropped": True}
    assert server.chat(ref, [4], [], tenant="r").json() == {"error": MISS}


def test_metrics_are_among_the_servers(server):
    assert server.metric("promptseam_handles") > 0
    assert server.metric("promptseam_handle_bytes") > 1000
    assert server.metric("promptseam_hits_total") > 0
    assert server.metric("promptseam_reused_tokens_total") > server.metric("promptseam_appended_tokens_total") / 100


def test_a_reference_is_left_for_the_next_server(server):
    """Read by the tests on the second server."""
    ref = server.chat(None, [1, 2, 3], [220, 151645]).json()["prompt_cache_ref"]
    Path(os.environ["PROMPTSEAM_VLLM_REF_FILE"]).write_text(json.dumps(ref))


@pytest.fixture(scope="module")
def second(second_url):
    return Server(second_url, key="secret")


class TestSecondServer:
    def test_after_a_restart_every_reference_misses(self, second):
        ref = json.loads(Path(os.environ["PROMPTSEAM_VLLM_REF_FILE"]).read_text())
        answer = second.chat(ref, [4], [])
        assert (answer.status_code, answer.json()) == (404, {"error": MISS})

    def test_the_servers_key_guards_every_route(self, second, second_url):
        stranger = Server(second_url)
        for route in ("chat", "generate", "register", "lookup", "drop"):
            assert stranger.post(f"{ROOT}/{route}", {}).status_code == 401
        for route in ("", "/stats"):
            assert stranger.http.get(ROOT + route).status_code == 401
            assert second.http.get(ROOT + route).status_code == 200

    def test_generate_works_without_the_scale_out_routes(self, second):
        assert second.post("/inference/v1/generate", {}).status_code == 403
        body = {"append_token_ids": [1], "sampling_params": {"max_tokens": 1}}
        assert second.post(f"{ROOT}/generate", body).status_code == 200

    def test_with_several_processes_a_reference_is_found_or_misses(self, second, second_url):
        """Each connection may reach another process, which has its own memory; no answer is a third thing."""
        ref = second.chat(None, list(range(300)), [220, 151645]).json()["prompt_cache_ref"]

        def once(_):
            fresh = Server(second_url, key="secret")
            answer = fresh.chat(ref, [4], [220, 151645])
            assert answer.status_code == 200 or answer.json() == {"error": MISS}
            return answer.status_code

        with ThreadPoolExecutor(4) as pool:
            statuses = list(pool.map(once, range(24)))
        assert set(statuses) == {200, 404}
        assert second.metric("promptseam_hits_total") == statuses.count(200)
        assert second.metric("promptseam_misses_total", reason="unknown") == statuses.count(404) + 1
        assert second.metric("promptseam_handles") == statuses.count(200) + 2
