"""Several connections to one engine, which works on one request of each connection at a time and lets them take turns.

A further connection is made on first need. Where one cannot be made, its requests go to the first connection, whose
state is that of all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from dgemma_engine.engine_client.connection import EngineConnection
from dgemma_engine.engine_client.connection_status import ConnectionStatus
from dgemma_engine.engine_client.infill_source import Connect
from dgemma_engine.protocol.definition_messages import Definitions, DefinitionsQuery
from dgemma_engine.protocol.messages import Context, Infill, OnDraft
from dgemma_engine.protocol.status_messages import Status
from dgemma_engine.protocol.trace_messages import Trace

_CONNECT_MS = 2_000

_Answer = TypeVar("_Answer")


class EngineLanes:
    """A `CompletionEngine` over connections.

    Args:
        connect: makes a connection.
        num_lanes: most connections.
        on_status: called with every change of the first connection's state or progress.
        on_fault: called with the reason for which one request failed while its connection stands.
        clock: seconds that never go backwards.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        num_lanes: int,
        on_status: Callable[[ConnectionStatus], None],
        on_fault: Callable[[ConnectionStatus], None],
        clock: Callable[[], float],
    ) -> None:
        listeners = [on_status, *[_ignore] * (num_lanes - 1)]
        self._lanes = [
            EngineConnection(connect, on_status=listener, on_fault=on_fault, clock=clock) for listener in listeners
        ]
        self._documents: list[list[str]] = [[] for _ in self._lanes]

    @property
    def status(self) -> ConnectionStatus:
        """What the first connection is doing."""
        return self._lanes[0].status

    @property
    def is_ready(self) -> bool:
        """Whether an engine with a loaded model is connected."""
        return self._lanes[0].is_ready

    def wake(self) -> None:
        """Begins to connect, unless connected or connecting."""
        self._lanes[0].wake()

    def reconfigure(self, connect: Connect) -> None:
        """Connects in another way from now on; closes every connection that stands or is being made."""
        for lane in self._lanes:
            lane.reconfigure(connect)

    async def infill(self, context: Context, on_draft: OnDraft | None = None) -> Infill | ConnectionStatus:
        """See `EngineConnection.infill`. A document keeps its connection while the engine works on it: only of one
        connection's requests does a newer one supersede an older one.
        """
        return await self._on_lane(context, lambda lane: lane.infill(context, on_draft))

    async def trace(self, context: Context) -> Trace | ConnectionStatus:
        """Answers one request with the trace of its steps; see `infill`."""
        return await self._on_lane(context, lambda lane: lane.trace(context))

    async def definitions(self, query: DefinitionsQuery) -> Definitions | None:
        """Returns how names are defined in a text; None without an engine that answers. Starts none."""
        return await self._lanes[0].definitions(query)

    async def _on_lane(self, context: Context, work: Callable[[EngineConnection], Awaitable[_Answer]]) -> _Answer:
        idx = self._choose(context.document)
        self._documents[idx].append(context.document)
        try:
            lane = self._lanes[idx]
            if idx and not lane.is_ready:
                await lane.settled(_CONNECT_MS)
            return await work(lane if lane.is_ready else self._lanes[0])
        finally:
            self._documents[idx].remove(context.document)

    async def about(self) -> Status | None:
        """Returns what the engine is and does; None without an engine that answers. Starts none."""
        return await self._lanes[0].about()

    async def close(self) -> None:
        """Ends every connection for good; the engine stays."""
        for lane in self._lanes:
            await lane.close()

    def _choose(self, document: str) -> int:
        """Returns the index of the document's connection, else of the first with the fewest requests."""
        indices = range(len(self._lanes))
        own = next((idx for idx in indices if document in self._documents[idx]), None)
        return own if own is not None else min(indices, key=lambda idx: len(self._documents[idx]))


def _ignore(_status: ConnectionStatus) -> None:
    pass
