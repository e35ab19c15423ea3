"""The kept prompts of one API server process: bounded in bytes, per tenant and in all, by last use and by age.

Everything here runs on the server's event loop, so nothing is locked.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from promptseam_vllm.errors import PromptHandleMissError
from promptseam_vllm.segments import BYTES_PER_TOKEN, Segment, acquire, extend, release

if TYPE_CHECKING:
    from collections.abc import Callable

EvictionReason = Literal["bytes", "age"]

HANDLE_OVERHEAD: Final = 1024
"""Bytes that a handle takes besides its ids and its owner's strings: its object, id and hash, three dictionary entries."""


class Owner(NamedTuple):
    """Whose a handle is. It is part of the key: another owner's handle can't be told from one that never was."""

    tenant: str
    model: str
    """The model, or LoRA adapter, by the name that the request asks for."""
    cache_salt: str | None


class _Key(NamedTuple):
    owner: Owner
    id: str


@dataclass(frozen=True)
class Handle:
    """A kept prompt: `token_count` ids, whose BLAKE3 is `token_hash` (lowercase hex)."""

    id: str
    segment: Segment = field(repr=False)
    token_hash: str

    @property
    def token_count(self) -> int:
        """How many ids are kept."""
        return self.segment.length // BYTES_PER_TOKEN


@dataclass(frozen=True)
class TenantStats:
    """What one tenant keeps in this process."""

    handles: int
    bytes: int


class Watcher(Protocol):
    """What is told of changes."""

    def sized(self, handles: int, size: int) -> None:
        """There are so many handles now, of so many bytes together."""

    def evicted(self, reason: EvictionReason) -> None:
        """One handle had to go."""


@dataclass
class _Entry:
    handle: Handle
    expires_at: float


@dataclass
class _Tenant:
    size: int = 0
    keys: OrderedDict[_Key, None] = field(default_factory=OrderedDict)
    """From the least to the most recently used."""


class HandleStore:
    """Handles by owner and id. Every operation is O(1) besides what it evicts."""

    def __init__(
        self,
        *,
        max_bytes: int,
        tenant_max_bytes: int,
        ttl_seconds: float,
        watcher: Watcher,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start empty; `clock` gives seconds and never goes back."""
        self._max_bytes = max_bytes
        self.tenant_max_bytes = tenant_max_bytes
        self.ttl_seconds = ttl_seconds
        self._watcher = watcher
        self._clock = clock
        self._size = 0
        # From the least to the most recently used, which is also the order in which they expire.
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._tenants: dict[str, _Tenant] = {}

    @staticmethod
    def new_id() -> str:
        """Give an id that can't be guessed: 192 random bits, 32 characters."""
        return secrets.token_urlsafe(24)

    def find(self, owner: Owner, handle_id: str) -> Handle:
        """Give the owner's handle, and count that as a use.

        Raises PromptHandleMissError.
        """
        key = _Key(owner, handle_id)
        entry = self._entries.get(key)
        if entry is None:
            raise PromptHandleMissError("unknown")
        now = self._clock()
        if entry.expires_at <= now:
            self.expire()
            raise PromptHandleMissError("expired")
        entry.expires_at = now + self.ttl_seconds
        self._entries.move_to_end(key)
        self._tenants[owner.tenant].keys.move_to_end(key)
        return entry.handle

    def put(  # noqa: PLR0913 - the parts of one record, all of them needed
        self, owner: Owner, handle_id: str, *, base: Segment | None, prefix: bytes, own: bytes, token_hash: str
    ) -> Handle | None:
        """Keep `prefix ++ own` (little-endian ids), where `base` begins with `prefix`; evict what must go for it.

        Gives None, and keeps nothing, where the prompt alone is more than a tenant may keep.
        """
        overhead = _overhead(owner)
        segment = extend(base, prefix, own)
        if overhead + segment.memory() > self.tenant_max_bytes:
            # A chain keeps more than its prompt: near the limit only a copy may fit.
            segment = extend(None, b"", prefix + own)
            if overhead + segment.memory() > self.tenant_max_bytes:
                return None
        self.expire()
        key = _Key(owner, handle_id)
        handle = Handle(handle_id, segment, token_hash)
        tenant = self._tenants.setdefault(owner.tenant, _Tenant())
        tenant.keys[key] = None
        self._entries[key] = _Entry(handle, self._clock() + self.ttl_seconds)
        self._resize(tenant, overhead + acquire(segment))
        while tenant.size > self.tenant_max_bytes:
            self._evict(next(iter(tenant.keys)), "bytes")
        while self._size > self._max_bytes:
            self._evict(next(iter(self._entries)), "bytes")
        self._tell()
        return handle

    def drop(self, owner: Owner, handle_id: str) -> None:
        """Forget the owner's handle.

        Raises PromptHandleMissError.
        """
        self.find(owner, handle_id)
        self._remove(_Key(owner, handle_id))
        self._tell()

    def expire(self) -> None:
        """Forget what was last used too long ago."""
        now = self._clock()
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if entry.expires_at > now:
                break
            self._evict(key, "age")
        self._tell()

    def stats(self, tenant: str) -> TenantStats:
        """Count what the tenant keeps."""
        found = self._tenants.get(tenant, _Tenant())
        return TenantStats(handles=len(found.keys), bytes=found.size)

    def _evict(self, key: _Key, reason: EvictionReason) -> None:
        self._remove(key)
        self._watcher.evicted(reason)

    def _remove(self, key: _Key) -> None:
        entry = self._entries.pop(key)
        tenant = self._tenants[key.owner.tenant]
        del tenant.keys[key]
        self._resize(tenant, -(_overhead(key.owner) + release(entry.handle.segment)))
        if not tenant.keys:
            del self._tenants[key.owner.tenant]

    def _resize(self, tenant: _Tenant, by: int) -> None:
        tenant.size += by
        self._size += by

    def _tell(self) -> None:
        self._watcher.sized(len(self._entries), self._size)


def _overhead(owner: Owner) -> int:
    return HANDLE_OVERHEAD + sum(len(text or "") for text in owner)
