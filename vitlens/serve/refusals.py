"""Errors as clients see them: OpenAI's shape around one sentence of ours, whoever raised it.

{"error": {"message": "...", "type": "invalid_request_error", "param": "input[3]", "code": "unreadable_input"}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from vitlens.errors import (
    HostError,
    InputError,
    MissingDependencyError,
    ModalityError,
    OptionError,
    SpaceError,
    VitlensError,
)
from vitlens.serve.settings import MB, OPTIONS, Limits

_CODES = {
    InputError: (400, "unreadable_input"),
    OptionError: (400, "invalid_value"),
    ModalityError: (400, "unknown_modality"),
    SpaceError: (400, "other_space"),
    HostError: (400, "invalid_value"),
    MissingDependencyError: (501, "not_installed"),
}


class Refusal(HTTPException):
    """An answer other than 200: its status, our sentence, and the `param` and `code` that programs go by."""

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.message = message
        self.code = code
        self.param = param

    def body(self) -> dict[str, Any]:
        """The error as OpenAI shapes it."""
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = "server_error" if self.status_code >= 500 else kinds.get(self.status_code, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body(), status_code=self.status_code, headers=self.headers)


def invalid(message: str, param: str | None = None, *, code: str = "invalid_value") -> Refusal:
    """A request that says something that is not allowed."""
    return Refusal(400, message, code=code, param=param)


def too_large(what: str, found: str, limit: str, limits: Limits, param: str | None = None) -> Refusal:
    """What is above one of the limits of `Limits`, with the option that changes it."""
    value = getattr(limits, limit)
    most = f"{value / MB:g} MB" if limit.endswith("bytes") else f"{value}"
    message = f"{what}: {found}, and this service takes at most {most} ({OPTIONS[limit]} changes that)"
    return Refusal(413, message, code="too_large", param=param)


def refusal_of(error: Exception, param: str | None = None) -> Refusal:
    """Any error as a refusal; of one that nobody foresaw nothing but its request id is told."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, HTTPException):  # of the framework: no such path, another method
        code = "not_found" if error.status_code in (404, 405) else "invalid_request"
        return Refusal(error.status_code, _sentence(error), code=code, headers=error.headers)
    if isinstance(error, VitlensError):
        status, code = next((found for kind, found in _CODES.items() if isinstance(error, kind)), (500, "server_error"))
        return Refusal(status, " ".join(str(error).split()), code=code, param=param)
    if isinstance(error, MemoryError):
        return Refusal(503, "the service is out of memory; try again later", code="out_of_memory", headers={"Retry-After": "5"})
    return Refusal(500, "something went wrong in the service; its log says what, under this X-Request-ID", code="server_error")


def _sentence(error: HTTPException) -> str:
    if error.status_code == 404:
        return "there is nothing at this path; /openapi.json lists what there is"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        return f"this path takes {allowed}"
    return str(error.detail)
