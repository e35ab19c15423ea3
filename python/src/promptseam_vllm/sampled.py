"""What the engine was given for a request, and what it sampled for the first choice."""

from __future__ import annotations

from array import array
from typing import Any

_BROKEN_OFF = frozenset({"abort", "error"})


class Sampled:
    """Fills while the engine's outputs pass."""

    def __init__(self, prompt: list[int]) -> None:
        """`prompt` is what the engine must be given."""
        self.prompt = prompt
        self._ids = array("I")
        self._finish_reason: str | None = None

    def see(self, output: Any, *, delta: bool) -> None:  # noqa: ANN401 - a RequestOutput of vLLM's
        """Take an output that holds the ids since the last one (`delta`), or all of them."""
        for choice in output.outputs:
            if choice.index != 0:
                continue
            if not delta:
                del self._ids[:]
            self._ids.extend(choice.token_ids)
            if choice.finish_reason is not None:
                self._finish_reason = choice.finish_reason

    def complete(self) -> bool:
        """Tell whether the first choice came to an end of its own."""
        return self._finish_reason is not None and self._finish_reason not in _BROKEN_OFF

    def ids(self) -> array[int]:
        """Give the ids so far, the stop token included."""
        return self._ids
