"""One request: from a reference and appended ids to the prompt, and from what was sampled to the next reference."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3
from pydantic_core import to_json

from promptseam_vllm.errors import PREFIX_MISMATCH, InvalidRequestError, PromptHandleMissError
from promptseam_vllm.protocol import PromptRef, highest, to_list
from promptseam_vllm.sampled import Sampled
from promptseam_vllm.segments import BYTES_PER_TOKEN

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from promptseam_vllm.engine import Server
    from promptseam_vllm.store import Handle, HandleStore, Owner

_DONE: Final = "data: [DONE]\n\n"
_ERROR: Final = 'data: {"error"'


def read_prefix(handle: Handle, ref: PromptRef) -> tuple[bytes, blake3]:
    """Give the ids that the reference names, and the hasher that has read them. O(token_count), 40 µs for 30,000.

    Raises PromptHandleMissError where count or hash are wrong.
    """
    if ref.token_count > handle.token_count:
        raise PromptHandleMissError(PREFIX_MISMATCH)
    prefix = handle.segment.read(ref.token_count * BYTES_PER_TOKEN)
    hasher = blake3(prefix)
    if hasher.hexdigest() != ref.token_hash:
        raise PromptHandleMissError(PREFIX_MISMATCH)
    return prefix, hasher


def check_ids(server: Server, ids: bytes, *, before: int, param: str) -> None:
    """Check that ids are in the vocabulary, and with the `before` ids that they follow within the model's context."""
    count = before + len(ids) // BYTES_PER_TOKEN
    if count > server.max_tokens:
        raise InvalidRequestError(
            f"The prompt has {count} tokens; this model's maximum context length is {server.max_tokens} tokens.", param
        )
    if not server.has_token(highest(ids)):
        raise InvalidRequestError(f"{param} holds a token id that is out of vocabulary.", param)


class Turn:
    """A prompt that was found right, and where it goes when it is answered."""

    def __init__(self, store: HandleStore, owner: Owner, handle: Handle | None, ref: PromptRef | None, appended: bytes) -> None:
        """`handle` is the one that `ref` names; without them `appended` is the whole prompt.

        Raises PromptHandleMissError where count or hash are wrong.
        """
        self.id = store.new_id()
        self._store = store
        self._owner = owner
        self._base, self._prefix, self._hasher = None, b"", blake3()
        if handle is not None and ref is not None:
            self._base = handle.segment
            self._prefix, self._hasher = read_prefix(handle, ref)
        self._appended = appended
        self.sampled = Sampled(to_list(self._prefix + appended))

    def keep(self) -> dict[str, Any] | None:
        """Keep prompt and sampled ids; gives the next reference, or None where nothing whole could be kept."""
        if not self.sampled.complete():
            return None
        ids = self.sampled.ids()
        if sys.byteorder == "big":
            ids.byteswap()
        own = self._appended + ids.tobytes()
        self._hasher.update(own)
        handle = self._store.put(
            self._owner,
            self.id,
            base=self._base,
            prefix=self._prefix,
            own=own,
            token_hash=self._hasher.hexdigest(),
        )
        return reference(handle).as_json() if handle is not None else None

    async def stream(self, events: AsyncGenerator[str, None], *, after: int, then: Any) -> AsyncGenerator[str, None]:  # noqa: ANN401
        """Pass vLLM's events on, with the next reference as the last before [DONE].

        The first `after` events, which vLLM makes together with the next one, are passed on with it: each costs its reader a
        wakeup. `then` is called when they have come. A stream that is left early, or that tells of an error, keeps nothing.
        """
        failed = False
        seen = 0
        held = ""
        async with aclosing(events):
            async for event in events:
                if event == _DONE:
                    ref = None if failed else self.keep()
                    held += f"data: {to_json({'prompt_cache_ref': ref}).decode()}\n\n"
                failed = failed or event.startswith(_ERROR)
                held += event
                seen += 1
                if seen == after:
                    then()
                if seen > after or event == _DONE or failed:
                    yield held
                    held = ""
        if held:
            yield held


def reference(handle: Handle) -> PromptRef:
    """Name the whole of a kept prompt."""
    return PromptRef(handle.id, handle.token_count, handle.token_hash)
