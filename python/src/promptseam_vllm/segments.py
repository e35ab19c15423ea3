"""Prompts that share what they have in common.

A segment is what one turn added to a prompt, and how much of the parent's prompt comes before it. A conversation of n turns so
costs what its longest prompt costs, and not the sum of n prompts.
"""

from __future__ import annotations

from typing import Final

BYTES_PER_TOKEN: Final = 4
"""A token id is a little-endian unsigned 32-bit word."""

_MAX_DEPTH: Final = 64
"""Reading a prompt walks its chain; behind this many segments a copy starts a new one."""

SEGMENT_OVERHEAD: Final = 256
"""Bytes that a segment takes besides its ids: its object and the header of its `bytes` (CPython 3.11, rounded up)."""


class Segment:
    """The first `kept` bytes of the parent's prompt, then `own`. Immutable but for its count of users."""

    __slots__ = ("depth", "held", "kept", "length", "own", "parent", "users")

    def __init__(self, parent: Segment | None, kept: int, own: bytes) -> None:
        """`parent` is None exactly where `kept` is 0."""
        self.parent: Segment | None = parent
        self.kept = kept
        self.own = own
        self.length: int = kept + len(own)
        """Bytes of the whole prompt."""
        self.held: int = len(own) + (parent.held if parent else 0)
        """Bytes of ids that the whole chain keeps in memory: at least `length`."""
        self.depth: int = parent.depth + 1 if parent else 1
        self.users = 0
        """Handles and segments that are built on this one; at zero it is no longer accounted for."""

    def memory(self) -> int:
        """Bytes that the whole chain takes."""
        return self.held + self.depth * SEGMENT_OVERHEAD

    def read(self, length: int) -> bytes:
        """Give the first `length` bytes of the prompt. O(length)."""
        pieces: list[memoryview] = []
        segment: Segment | None = self
        while segment is not None:
            if length > segment.kept:
                pieces.append(memoryview(segment.own)[: length - segment.kept])
                length = segment.kept
            segment = segment.parent
        return b"".join(reversed(pieces))


def extend(base: Segment | None, prefix: bytes, own: bytes) -> Segment:
    """Give the segment for `prefix ++ own`, on top of `base` where that saves memory.

    `prefix` must be what `base` begins with. It is copied instead of shared where the chain has grown long, would keep more than
    twice the prompt's size alive, or is no longer kept by anyone. O(1) when shared.
    """
    length = len(prefix) + len(own)
    if base is None or base.users == 0 or base.depth >= _MAX_DEPTH or base.held + len(own) > 2 * length:
        return Segment(None, 0, prefix + own)
    return Segment(base, len(prefix), own)


def acquire(segment: Segment) -> int:
    """Count one more user of the segment; give the bytes that are in memory for it since."""
    segment.users += 1
    if segment.users > 1:
        return 0
    if segment.parent is not None:
        # `extend` builds only on segments that have users, so this never revives one.
        segment.parent.users += 1
    return SEGMENT_OVERHEAD + len(segment.own)


def release(segment: Segment) -> int:
    """Count one user less; give the bytes that are free since. O(depth)."""
    freed = 0
    current: Segment | None = segment
    while current is not None:
        current.users -= 1
        if current.users > 0:
            break
        freed += SEGMENT_OVERHEAD + len(current.own)
        current = current.parent
    return freed
