"""What requests say, checked: bodies, references, ids, tenants. Everything wrong is an InvalidRequestError, never a 500."""

from __future__ import annotations

import re
import sys
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic_core import from_json

from promptseam_vllm.errors import BodyTooLargeError, InvalidRequestError
from promptseam_vllm.segments import BYTES_PER_TOKEN

if TYPE_CHECKING:
    from starlette.requests import Request

PROTOCOL_VERSION: Final = 1
"""What `GET /inference/v1/prompt-handles` answers as `promptseam`; another number is another protocol."""

TENANT_HEADER: Final = "x-promptseam-tenant"
MODEL_HEADER: Final = "x-promptseam-model"
SALT_HEADER: Final = "x-promptseam-cache-salt"
REF_HEADER: Final = "x-promptseam-ref"

_MAX_NAME: Final = 1024
"""Characters of a tenant, model, salt or id: they are kept with each handle."""

_HASH: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PromptRef:
    """A prefix of a kept prompt: its first `token_count` ids, of which `token_hash` is the BLAKE3 in lowercase hex."""

    id: str
    token_count: int
    token_hash: str

    def as_json(self) -> dict[str, Any]:
        """Give the member `prompt_cache_ref` of an answer."""
        return {"id": self.id, "token_count": self.token_count, "token_hash": self.token_hash}


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Read the body, but no more than `max_bytes` of it."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise BodyTooLargeError(max_bytes)
        parts.append(part)
    return b"".join(parts)


def content_type(request: Request) -> str:
    """Give the media type of the body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object."""
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError:
        # Its message may quote the body.
        raise InvalidRequestError("The request body is not valid JSON.") from None
    if not isinstance(value, dict):
        raise InvalidRequestError("The request body must be a JSON object.")
    return value


def tenant_of(request: Request) -> str:
    """Give the tenant, as the gateway in front of this server names it."""
    return name(request.headers.get(TENANT_HEADER, ""), TENANT_HEADER)


def name(value: object, param: str) -> str:
    """Check a short string."""
    if not isinstance(value, str) or len(value) > _MAX_NAME:
        raise InvalidRequestError(f"{param} must be a string of at most {_MAX_NAME} characters.", param)
    return value


def optional_name(value: object, param: str) -> str | None:
    """Check a short string that may be left out; an empty one counts as left out."""
    return None if value is None else name(value, param) or None


def parse_ref(value: object) -> PromptRef:
    """Check a whole reference."""
    members = _members(value)
    return PromptRef(
        id=_id(members),
        token_count=_count(members.get("token_count")),
        token_hash=_hash(members.get("token_hash")),
    )


def parse_handle(value: object) -> tuple[str, PromptRef | None]:
    """Check a reference of which the id is enough; gives the id, and the whole reference where it is one."""
    members = _members(value)
    if members.get("token_count") is None and members.get("token_hash") is None:
        return _id(members), None
    ref = parse_ref(value)
    return ref.id, ref


def parse_ids(value: object, param: str) -> bytes:
    """Check a list of token ids; gives them little-endian."""
    if not isinstance(value, list) or not value:
        raise InvalidRequestError(f"{param} must be a list of at least one token id.", param)
    # By exact type: a bool is an int too. Both steps run in C: 0.6 ms for 30,000 ids.
    if set(map(type, value)) != {int}:
        raise InvalidRequestError(f"{param} must hold integers only.", param)
    try:
        ids = array("I", value)
    except OverflowError:
        raise InvalidRequestError(f"{param} must hold token ids from 0 to {2**32 - 1}.", param) from None
    if sys.byteorder == "big":
        ids.byteswap()
    return ids.tobytes()


def parse_binary_ids(body: bytes) -> bytes:
    """Check a body of little-endian 32-bit token ids."""
    if not body or len(body) % BYTES_PER_TOKEN:
        raise InvalidRequestError(f"The body must hold at least one token id, of {BYTES_PER_TOKEN} bytes each.", "token_ids")
    return body


def highest(ids: bytes) -> int:
    """Give the greatest of one or more ids."""
    return int(np.frombuffer(ids, "<u4").max())


def to_list(ids: bytes) -> list[int]:
    """Give the ids as the engine wants them: 0.45 ms for 30,000, most of what a handle costs."""
    numbers: list[int] = np.frombuffer(ids, "<u4").tolist()
    return numbers


def _members(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequestError("prompt_cache_ref must be an object of id, token_count and token_hash.", "prompt_cache_ref")
    return value


def _id(members: dict[str, Any]) -> str:
    handle_id = name(members.get("id"), "prompt_cache_ref.id")
    if not handle_id:
        raise InvalidRequestError("prompt_cache_ref.id must not be empty.", "prompt_cache_ref.id")
    return handle_id


def _count(value: object) -> int:
    if type(value) is not int or value < 1:
        raise InvalidRequestError("prompt_cache_ref.token_count must be a positive integer.", "prompt_cache_ref.token_count")
    return value


def _hash(value: object) -> str:
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise InvalidRequestError(
            "prompt_cache_ref.token_hash must be a BLAKE3 of 64 lowercase hex digits.", "prompt_cache_ref.token_hash"
        )
    return value
