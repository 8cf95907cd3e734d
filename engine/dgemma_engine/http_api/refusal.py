"""A request that is not answered: status, one sentence, and when to come back. The dialect of the path shapes the body.

The sentence repeats nothing of the request and names no path of the machine.
"""

from __future__ import annotations

from dataclasses import dataclass

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "server_error",
    503: "unavailable_error",
}


@dataclass(kw_only=True, eq=False)
class Refusal(Exception):
    """Ends a request without a completion.

    Attributes:
        status: HTTP status, a key of the table above.
        message: one sentence for a person.
        field: place of the wrong field in the body, such as `segments.prefix`; empty where the fault is another.
        retry_after_s: seconds after which a further attempt makes sense; 0 sends no `Retry-After`.
        allow: methods that the path has, for 405; else empty.
    """

    status: int
    message: str
    field: str = ""
    retry_after_s: int = 0
    allow: str = ""

    def __post_init__(self) -> None:
        if self.status not in _KINDS:
            raise ValueError(f"{self.status=} must be one of {', '.join(map(str, _KINDS))}")

    def __str__(self) -> str:
        return self.message

    @property
    def kind(self) -> str:
        """The name that llama.cpp and OpenAI give to this status."""
        return _KINDS[self.status]

    @property
    def headers(self) -> dict[str, str]:
        """What goes into the head of the answer besides the type of its body.

        OpenAI's SDK retries 408, 409, 429 and everything from 500 on twice unless it is told not to.
        """
        headers: dict[str, str] = {}
        if self.status in (408, 429, 500, 503):
            headers["x-should-retry"] = "false"
        if self.retry_after_s:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.allow:
            headers["Allow"] = self.allow
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.status in (408, 413, 431):
            # The rest of the request is not read.
            headers["Connection"] = "close"
        return headers
