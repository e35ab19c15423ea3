"""What an operator can set, by environment variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_MIB = 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """Limits of one API server process; sizes are in bytes, times in seconds."""

    max_bytes: int = 512 * _MIB
    """All kept prompts together, bookkeeping included."""

    tenant_max_bytes: int = 128 * _MIB
    """The kept prompts of one tenant: what it adds beyond that evicts its own."""

    ttl_seconds: float = 3600.0
    """How long a prompt is kept after its last use."""

    max_body_bytes: int = 16 * _MIB
    """The longest request body that is read."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read PROMPTSEAM_MAX_BYTES, _TENANT_MAX_BYTES (default: a quarter of it), _TTL_SECONDS and _MAX_BODY_BYTES.

        Raises ValueError for a value that is no positive number, and for a tenant limit above the whole.
        """
        max_bytes = int(_positive(environment, "PROMPTSEAM_MAX_BYTES", cls.max_bytes))
        tenant_max_bytes = int(_positive(environment, "PROMPTSEAM_TENANT_MAX_BYTES", max(1, max_bytes // 4)))
        if tenant_max_bytes > max_bytes:
            raise ValueError("PROMPTSEAM_TENANT_MAX_BYTES must not be more than PROMPTSEAM_MAX_BYTES.")
        return cls(
            max_bytes=max_bytes,
            tenant_max_bytes=tenant_max_bytes,
            ttl_seconds=_positive(environment, "PROMPTSEAM_TTL_SECONDS", cls.ttl_seconds),
            max_body_bytes=int(_positive(environment, "PROMPTSEAM_MAX_BODY_BYTES", cls.max_body_bytes)),
        )


def _positive(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value < float("inf"):
        raise ValueError(f"{name} must be a number of at least 1.")
    return value
