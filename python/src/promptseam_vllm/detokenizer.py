"""Text of sampled ids without the text of the prompt.

vLLM 0.32 primes the stream that makes text of what is sampled with the whole prompt, and the first step decodes all of it: a
millisecond for some 4,000 ids, between the engine's first token and the client. Where a tokenizer decodes bytes, the last ids
do as well: a step gives what decoding adds to the text before it, and no byte changes one before it.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

TAIL: Final = 64
"""Ids that a stream is primed with."""

_short: ContextVar[bool] = ContextVar("promptseam_primes_with_the_tail", default=False)


def patch(decoders: Any) -> None:  # noqa: ANN401 - the module `tokenizers.decoders`
    """Make streams that begin within `primed_with_the_tail` take the last ids only; all others are as they were.

    vLLM looks `DecodeStream` up in its module each time, so that other backends can replace it, as its own fastokens patch does.
    """
    whole = decoders.DecodeStream
    if whole.__module__ == __name__:
        return

    def stream(ids: list[int] | None = None, skip_special_tokens: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002
        if ids is not None and _short.get():
            ids = ids[-TAIL:]
        return whole(ids=ids, skip_special_tokens=skip_special_tokens)

    decoders.DecodeStream = stream


@contextmanager
def primed_with_the_tail(*, allowed: bool) -> Iterator[None]:
    """Prime streams that begin in here, or in tasks that do, with the last ids, where that is `allowed`."""
    token = _short.set(allowed)
    try:
        yield
    finally:
        _short.reset(token)


def tail_will_do(tokenizer: Any, prompt: list[int]) -> bool:  # noqa: ANN401 - one of vLLM's
    """Tell whether the last ids give the same text as all of them: of whole characters, by a decoder of bytes. Some 100 µs."""
    inner: Any = getattr(tokenizer, "_tokenizer", None)
    try:
        kind = json.loads(inner.decoder.__getstate__())["type"]
        texts = [inner.decode(prompt[-TAIL:], skip_special_tokens=skip) for skip in (False, True)]
    except (AttributeError, KeyError, TypeError, ValueError):
        # Of another backend, which may decode in another way.
        return False
    return kind == "ByteLevel" and all(text and not text.endswith("\ufffd") for text in texts)
