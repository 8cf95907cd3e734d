"""An engine as the server uses it, and the function that connects to one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from dgemma_engine.errors import OutOfReach
from dgemma_engine.protocol.definition_messages import Definitions, DefinitionsQuery
from dgemma_engine.protocol.messages import Context, Infill, OnDraft
from dgemma_engine.protocol.status_messages import Progress, Status
from dgemma_engine.protocol.trace_messages import Trace


class InfillSource(Protocol):
    """A connected engine: `EngineClient` over the socket, `RemoteEngine` over HTTP."""

    async def infill(self, context: Context, on_draft: OnDraft | None = None) -> Infill:
        """Answers one question and passes its drafts on; cancelling the caller cancels the work."""
        ...

    async def trace(self, context: Context) -> Trace:
        """Answers one question with the trace of its steps; cancelling the caller cancels the work."""
        ...

    async def definitions(self, query: DefinitionsQuery) -> Definitions:
        """Returns how names are defined in a text."""
        ...

    async def status(self) -> Status:
        """Returns what the engine is and does."""
        ...

    async def wait_ready(self, timeout_s: float) -> Status:
        """Waits until the model is loaded; returns what the engine is. Raises `EngineUnavailable` after `timeout_s`."""
        ...

    async def close(self) -> None:
        """Ends the connection."""
        ...


class OnClosed(Protocol):
    """Called once when a connection ends without `close`."""

    def __call__(self, why: OutOfReach | None = None, /) -> None:
        """Receives why; None where the engine itself has ended."""
        ...


class Connect(Protocol):
    """Makes the connection."""

    def __call__(self, *, on_progress: Callable[[Progress], None], on_closed: OnClosed) -> Awaitable[InfillSource]:
        """Connects, or raises `EngineUnavailable`."""
        ...
