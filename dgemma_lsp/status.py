"""What a status bar shows, as the `dgemma/status` notification carries it. Values and their bookkeeping only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from dgemma_lsp.engine_link import LinkState, LinkStatus

METHOD = "dgemma/status"


class StatusKind(StrEnum):
    """What the user can expect of the next request."""

    READY = "ready"
    LOADING = "loading"
    BUSY = "busy"
    INACTIVE = "inactive"
    ERROR = "error"


_KINDS = {
    LinkState.DISCONNECTED: StatusKind.INACTIVE,
    LinkState.STARTING: StatusKind.LOADING,
    LinkState.LOADING: StatusKind.LOADING,
    LinkState.READY: StatusKind.READY,
    LinkState.FAILED: StatusKind.ERROR,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """One state of the server.

    Attributes:
        kind: what the user can expect.
        message: one line for a person; for `ERROR` it names the cause and the remedy; may be empty.
        percent: load progress, 0 to 100.
    """

    kind: StatusKind
    message: str = ""
    percent: int = 0

    @classmethod
    def of(cls, status: LinkStatus) -> Self:
        """Returns what to show for a state of the link to the engine."""
        return cls(kind=_KINDS[status.state], message=status.message, percent=status.percent)

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
