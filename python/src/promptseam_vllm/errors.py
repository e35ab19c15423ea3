"""The typed errors of the prompt-handle routes, in the shape of vLLM's own.

No message holds prompt text, token ids, or anything of another tenant's.
"""

from __future__ import annotations

from typing import Any, Final, Literal

MissReason = Literal["unknown", "expired", "prefix_mismatch"]
"""Why a reference was not found; `unknown` covers what never was, was dropped or evicted, and what is another's."""

PREFIX_MISMATCH: Final = "prefix_mismatch"


class PromptHandleError(Exception):
    """An answer other than 200; `body` is its JSON."""

    def __init__(self, message: str, *, kind: str, code: int, param: str | None = None) -> None:
        """Hold the members of vLLM's error object: message, type (`kind`), code (the HTTP status) and param."""
        super().__init__(message)
        self.kind = kind
        self.code = code
        self.param = param

    def body(self) -> dict[str, Any]:
        """Give the JSON that is answered."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


class InvalidRequestError(PromptHandleError):
    """400: the request can't be right on any server; nothing was run and nothing was changed."""

    def __init__(self, message: str, param: str | None = None) -> None:
        """`param` names the member that is wrong."""
        super().__init__(message, kind="BadRequestError", code=400, param=param)


class BodyTooLargeError(PromptHandleError):
    """413: the body has more bytes than this server takes."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` is what it takes."""
        super().__init__(f"The request body is larger than {max_bytes} bytes.", kind="PayloadTooLargeError", code=413)


class PromptTooLargeError(PromptHandleError):
    """413: one prompt has more bytes than a tenant may keep."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` is what a tenant may keep."""
        super().__init__(
            f"The prompt does not fit in the {max_bytes} bytes that a tenant may keep.",
            kind="PayloadTooLargeError",
            code=413,
        )


class UnsupportedError(PromptHandleError):
    """501: this server has no such surface for the model that it runs."""

    def __init__(self, message: str) -> None:
        """`message` says which."""
        super().__init__(message, kind="NotImplementedError", code=501)


class PromptHandleMissError(PromptHandleError):
    """404: there is no such prompt for this tenant, model and salt; nothing was run.

    The answer is the same for every cause, except that who holds a handle is told that its count or hash is wrong.
    """

    def __init__(self, reason: MissReason) -> None:
        """`reason` goes to the metrics; only `prefix_mismatch` goes to the client."""
        super().__init__(
            "No prompt is kept for this reference. Send all token ids.",
            kind="PromptHandleMiss",
            code=404,
        )
        self.reason: MissReason = reason

    def body(self) -> dict[str, Any]:
        """Give the JSON that is answered."""
        body = super().body()
        if self.reason == PREFIX_MISMATCH:
            body["error"]["reason"] = self.reason
        return body
