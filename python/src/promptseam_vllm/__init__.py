"""Prompt handles for vLLM: a long prompt is sent once, then only what is appended to it."""

from promptseam_vllm.plugin import PromptHandlePlugin

__all__ = ["PromptHandlePlugin"]
