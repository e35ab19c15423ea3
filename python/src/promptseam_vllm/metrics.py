"""The figures of a whole process, in vLLM's own Prometheus registry; with several API servers vLLM's /metrics sums them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

if TYPE_CHECKING:
    from promptseam_vllm.errors import MissReason
    from promptseam_vllm.store import EvictionReason


class Metrics:
    """Counters and gauges named `promptseam_*`. None has a label by tenant."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register them; a registry takes them once."""
        self._handles = Gauge("promptseam_handles", "Prompts that are kept.", registry=registry, multiprocess_mode="livesum")
        self._bytes = Gauge(
            "promptseam_handle_bytes", "Bytes that kept prompts take.", registry=registry, multiprocess_mode="livesum"
        )
        self._hits = Counter("promptseam_hits", "References that were found.", registry=registry)
        self._misses = Counter("promptseam_misses", "References that were not found.", ["reason"], registry=registry)
        self._evictions = Counter(
            "promptseam_evictions", "Prompts that had to go, for space or by age.", ["reason"], registry=registry
        )
        self._reused = Counter("promptseam_reused_tokens", "Prompt tokens taken from handles.", registry=registry)
        self._appended = Counter("promptseam_appended_tokens", "Prompt tokens that were sent.", registry=registry)

    def sized(self, handles: int, size: int) -> None:
        """There are so many handles now, of so many bytes together."""
        self._handles.set(handles)
        self._bytes.set(size)

    def evicted(self, reason: EvictionReason) -> None:
        """One handle had to go."""
        self._evictions.labels(reason).inc()

    def hit(self) -> None:
        """A reference was found, and its count and hash are right."""
        self._hits.inc()

    def missed(self, reason: MissReason) -> None:
        """A reference was not found."""
        self._misses.labels(reason).inc()

    def prompted(self, *, reused: int, appended: int) -> None:
        """A prompt of so many kept and so many sent tokens goes to the engine."""
        self._reused.inc(reused)
        self._appended.inc(appended)
