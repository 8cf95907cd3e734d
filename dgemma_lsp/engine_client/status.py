"""What a status bar shows, as the `dgemma/status` notification carries it. Values and their bookkeeping only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from dgemma_lsp.engine_client.connection import LinkState, LinkStatus

METHOD = "dgemma/status"


class StatusKind(StrEnum):
    """What the user can expect of the next request."""

    READY = "ready"
    LOADING = "loading"
    BUSY = "busy"
    SLOW = "slow"
    INACTIVE = "inactive"
    ERROR = "error"


_KINDS = {
    LinkState.DISCONNECTED: StatusKind.INACTIVE,
    LinkState.STARTING: StatusKind.LOADING,
    LinkState.LOADING: StatusKind.LOADING,
    LinkState.READY: StatusKind.READY,
    LinkState.FAILED: StatusKind.ERROR,
    LinkState.ABSENT: StatusKind.INACTIVE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """One state of the server.

    Attributes:
        kind: what the user can expect.
        message: one line for a person; for `ERROR` it names the cause and the remedy; may be empty.
        percent: load progress, 0 to 100.
        reason: why it is slow or does nothing, for `SLOW` and `INACTIVE`; else empty.
        uri: the one document that it is about, for `INACTIVE`; empty where it holds everywhere.
    """

    kind: StatusKind
    message: str = ""
    percent: int = 0
    reason: str = ""
    uri: str = ""

    def __post_init__(self) -> None:
        if bool(self.reason) != (self.kind in {StatusKind.SLOW, StatusKind.INACTIVE}):
            raise ValueError(f"{self.reason=} is for what is slow or inactive, not for {self.kind}")

    @classmethod
    def inactive(cls, why: str, *, uri: str = "") -> Self:
        """Returns the state of doing nothing, everywhere or in one document; the reason is all there is to say."""
        return cls(kind=StatusKind.INACTIVE, message=why, reason=why, uri=uri)

    @classmethod
    def slow(cls, why: str) -> Self:
        """Returns the state of answering late."""
        return cls(kind=StatusKind.SLOW, message=f"slow: {why}", percent=100, reason=why)

    @classmethod
    def of(cls, status: LinkStatus) -> Self:
        """Returns what to show for a state of the link to the engine."""
        kind = _KINDS[status.state]
        if kind is StatusKind.INACTIVE:
            return cls.inactive(status.message or "the first request starts the engine")
        return cls(kind=kind, message=status.message, percent=status.percent)

    def to_wire(self) -> dict[str, Any]:
        """Returns the notification's parameters."""
        return asdict(self) | {"kind": self.kind.value, "busy": self.kind in {StatusKind.BUSY, StatusKind.LOADING}}


class StatusBoard:
    """Remembers what was told, so that nothing is told twice.

    Args:
        publish: called with every state that differs from the last.
        alarm: called with an error's message, once until `clear`.
    """

    def __init__(self, *, publish: Callable[[ServerStatus], None], alarm: Callable[[str], None]) -> None:
        self._publish = publish
        self._alarm = alarm
        self._last: ServerStatus | None = None
        self._alarmed: set[str] = set()

    def show(self, status: ServerStatus) -> None:
        """Tells the client, if it does not know yet."""
        if status == self._last:
            return
        self._last = status
        self._publish(status)
        if status.kind is StatusKind.ERROR and status.message not in self._alarmed:
            self._alarmed.add(status.message)
            self._alarm(status.message)

    def clear(self) -> None:
        """Takes note that something has worked: an error that comes again is news."""
        self._alarmed.clear()
