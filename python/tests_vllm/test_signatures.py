"""The stand-in of the other tests promises what the real vLLM does: what it gets wrong, they would not notice.

Runs in an environment that has vLLM.
"""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points

import pytest
import standin

from promptseam_vllm import PromptHandlePlugin, engine

vllm = pytest.importorskip("vllm")


@pytest.fixture(scope="module")
def api():
    return engine.load()


def parameters(function):
    return list(inspect.signature(function).parameters)


def test_it_is_a_version_that_was_looked_at():
    assert vllm.__version__.startswith("0.32.")


def test_the_plugin_is_found_by_its_entry_point_and_fits_the_protocol():
    from vllm.plugins import ENDPOINT_PLUGINS_GROUP
    from vllm.plugins.endpoint_plugins.interface import EndpointPlugin

    (found,) = [point for point in entry_points(group=ENDPOINT_PLUGINS_GROUP) if point.name == "promptseam"]
    assert found.load() is PromptHandlePlugin
    for member in ("attach_router", "init_state"):
        ours, theirs = getattr(PromptHandlePlugin, member), getattr(EndpointPlugin, member)
        assert parameters(ours) == parameters(theirs)
        assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs)
    assert isinstance(PromptHandlePlugin(), EndpointPlugin)


def test_the_serving_objects_are_called_alike():
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.entrypoints.scale_out.token_in_token_out.serving import ServingTokens

    for ours, theirs in (
        (standin.ServingChat.create_chat_completion, OpenAIServingChat.create_chat_completion),
        (standin.ServingTokens.serve_tokens, ServingTokens.serve_tokens),
    ):
        assert parameters(ours) == parameters(theirs)
        assert inspect.iscoroutinefunction(theirs)


def test_the_serving_objects_hold_their_engine_and_no_state_of_their_own():
    """A shallow copy with another engine is a whole one: nothing is assigned outside of a constructor."""
    from vllm.entrypoints.generate.base.serving import GenerateBaseServing
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.entrypoints.scale_out.token_in_token_out.serving import ServingTokens

    assert "self.engine_client = engine_client" in inspect.getsource(GenerateBaseServing.__init__)
    for serving in (OpenAIServingChat, ServingTokens, GenerateBaseServing):
        body = inspect.getsource(serving).replace(inspect.getsource(serving.__init__), "")
        assert [line for line in body.splitlines() if line.strip().startswith("self.") and " = " in line.split("(")[0]] == []


def test_the_engine_is_asked_alike():
    from vllm.v1.engine.async_llm import AsyncLLM

    assert parameters(AsyncLLM.generate)[:4] == parameters(standin.Engine.generate)[:4]
    assert inspect.isasyncgenfunction(AsyncLLM.generate)


def test_the_engine_says_alike_what_it_samples():
    from vllm.outputs import CompletionOutput
    from vllm.sampling_params import RequestOutputKind

    fields = inspect.signature(CompletionOutput).parameters
    assert {"index", "token_ids", "finish_reason"} <= fields.keys()
    assert RequestOutputKind.DELTA.name == standin.RequestOutputKind.DELTA.name


@pytest.mark.parametrize("name", ["chat_request", "generate_request"])
def test_the_requests_have_the_members_that_are_used(api, name):
    ours, theirs = getattr(standin.API, name).model_fields, getattr(api, name).model_fields
    missing = ours.keys() - theirs.keys()
    assert missing == set()
    assert not getattr(api, name).model_config.get("validate_assignment")


def test_errors_have_the_same_shape(api):
    members = {"message", "type", "param", "code"}
    assert standin.ErrorInfo.model_fields.keys() == members
    assert api.error_response.model_fields["error"].annotation.model_fields.keys() >= members
    assert issubclass(api.client_error, Exception)


def test_the_prompt_is_an_optional_member_of_answers():
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse
    from vllm.entrypoints.scale_out.token_in_token_out.protocol import GenerateResponseBase

    for answer in (ChatCompletionResponse, GenerateResponseBase):
        assert answer.model_fields["prompt_token_ids"].default is None


def test_the_flag_for_ids_is_read_anew_for_each_event():
    """The stream reads it for the first events, which would hold the prompt, and again for those with sampled ids."""
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat

    source = inspect.getsource(OpenAIServingChat.chat_completion_stream_generator)
    assert source.count("request.return_token_ids") == 3


def test_streams_end_and_fail_in_the_words_that_are_looked_for():
    from vllm.entrypoints.generate.base.serving import GenerateBaseServing
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.entrypoints.scale_out.token_in_token_out.serving import ServingTokens

    for function in (OpenAIServingChat.chat_completion_stream_generator, ServingTokens.serve_tokens_stream_generator):
        assert 'yield "data: [DONE]\\n\\n"' in inspect.getsource(function)
    serving = OpenAIServingChat.__new__(OpenAIServingChat)
    error = GenerateBaseServing.create_streaming_error_response(serving, "m")
    assert error.startswith('{"error"')


def test_a_chat_is_rendered_by_a_method_of_its_serving_object():
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.renderers import online_renderer

    assert parameters(OpenAIServingChat.render_chat_request) == parameters(standin.ServingChat.render_chat_request)
    assert "await self.render_chat_request(request)" in inspect.getsource(OpenAIServingChat._create_chat_completion)
    # The list that is given is the one that comes back.
    for function in (online_renderer.OnlineRenderer.preprocess_chat, online_renderer.OnlineRenderer._make_request_with_harmony):
        assert "tokens_input(" in inspect.getsource(function)
    assert "return ids\n" in inspect.getsource(online_renderer._reused_prompt_token_ids)


def test_the_models_are_told_alike():
    from vllm.entrypoints.openai.models.serving import OpenAIServingModels
    from vllm.renderers.base import BaseRenderer

    source = inspect.getsource(OpenAIServingModels.__init__)
    for member in ("base_model_paths", "lora_requests", "model_config", "renderer"):
        assert f"self.{member}" in source
    assert parameters(OpenAIServingModels.model_name) == parameters(standin.Models.model_name)
    assert parameters(BaseRenderer.validate_token_ids) == parameters(standin.Models.validate_token_ids)
