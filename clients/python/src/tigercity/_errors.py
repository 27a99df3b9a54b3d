"""What can go wrong, by class: by the status where the server answered. Knows no transport."""

from __future__ import annotations

import json
from typing import Any, Optional


class TigerCityError(Exception):
    """Every error of this package."""

    request_id: Optional[str] = None
    """Names the request in the server's log; quote it when reporting a problem. None where no server answered."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class APIConnectionError(TigerCityError):
    """No answer, or one that ended early. `__cause__` has the transport's own error."""

    unsent = False
    """True: the request never left, so that it may be repeated whatever it was."""


class APITimeoutError(APIConnectionError):
    """The server took longer than `timeout`."""


class StreamInterruptedError(APIConnectionError):
    """A stream ended without its last chunk: what came before is not complete."""


class UnexpectedAnswerError(TigerCityError):
    """An answer that is none of this API's: is the base URL right?"""


class APIStatusError(TigerCityError):
    """The server answered with an error; the message is the server's and says what to do."""

    def __init__(self, status: int, body: dict[str, Any], retry_after: Optional[float] = None) -> None:
        super().__init__(str(body.get("message") or f"the server answered {status}"))
        self.status = status
        self.body = body
        self.type: Optional[str] = body.get("type")
        self.code: Optional[str] = body.get("code")
        """What exactly, for programs: `invalid_parameter`, `model_not_found`, …"""
        self.param: Optional[str] = body.get("param")
        """The field at fault, e.g. `messages[2].role`."""
        self.request_id = body.get("request_id")
        self.retry_after = retry_after
        """Seconds after which the server wants to be asked again."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an exception is copied by its message alone.
        return type(self), (self.status, self.body, self.retry_after)

    def __str__(self) -> str:
        what = f"{self.status} {self.code}" if self.code else str(self.status)
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{what}: {self.message}{request}"


class BadRequestError(APIStatusError):
    """400: the request is not understood."""


class AuthenticationError(APIStatusError):
    """401: no key, an unknown or a revoked one."""


class PermissionDeniedError(APIStatusError):
    """403: base models are read-only."""


class NotFoundError(APIStatusError):
    """404: no such model or revision."""


class ConflictError(APIStatusError):
    """409: name taken, another revision, weights no longer kept."""


class UnprocessableEntityError(APIStatusError):
    """422: well-formed but invalid; `param` names the field."""


class RateLimitError(APIStatusError):
    """429: too many requests; `retry_after` says when."""


class InternalServerError(APIStatusError):
    """500 and above: the server's fault, or it is starting, stopping or without the model's weights."""


_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}

# Errors inside a stream come without a status; each type has one.
_STATUS_OF_TYPE = {
    "invalid_request": 400,
    "authentication": 401,
    "permission": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "timeout": 408,
    "conflict": 409,
    "too_large": 413,
    "validation": 422,
    "rate_limit": 429,
    "internal": 500,
    "unavailable": 503,
}


def status_error(status: int, body: dict[str, Any], retry_after: Optional[float] = None) -> APIStatusError:
    """The error of an `error` object."""
    kind = _BY_STATUS.get(status, InternalServerError if status >= 500 else APIStatusError)
    return kind(status, body, retry_after)


def answer_error(status: int, content: bytes, request_id: Optional[str], retry_after: Optional[float]) -> APIStatusError:
    """The error of an HTTP answer, which may be that of a proxy and not JSON at all."""
    try:
        body = json.loads(content)["error"]
        if not isinstance(body, dict):
            raise TypeError
    except (ValueError, LookupError, TypeError):
        body = {"message": f"the server answered {status} without an error of this API; is the base URL right?"}
    body.setdefault("request_id", request_id)
    return status_error(status, body, retry_after)


def streamed_error(body: dict[str, Any]) -> APIStatusError:
    """The error of a stream's last chunk."""
    return status_error(_STATUS_OF_TYPE.get(str(body.get("type")), 500), body)
