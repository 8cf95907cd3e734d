"""The connections to the engine, closed while there are no requests, so that an unused engine can end.

A resting engine counts as ready: the next completion connects again, and starts an engine where none is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager

from dgemma_engine.engine_client.connection_status import ConnectionState, ConnectionStatus
from dgemma_engine.engine_client.infill_source import Connect
from dgemma_engine.http_api.engine_lanes import EngineLanes
from dgemma_engine.protocol.definition_messages import Definitions, DefinitionsQuery
from dgemma_engine.protocol.messages import Context, Infill, OnDraft
from dgemma_engine.protocol.status_messages import Status
from dgemma_engine.protocol.trace_messages import Trace

_RESTING = ConnectionStatus(state=ConnectionState.READY, percent=100)
_POLL_S = 5.0


class RestingEngine:
    """A `CompletionEngine` over connections.

    Args:
        lanes: the connections that are closed and made again.
        connect: makes a connection.
        rest_s: seconds without a completion after which they are closed.
        clock: seconds that never go backwards.
    """

    def __init__(self, lanes: EngineLanes, connect: Connect, *, rest_s: float, clock: Callable[[], float]) -> None:
        self._lanes = lanes
        self._connect = connect
        self._rest_s = rest_s
        self._clock = clock
        self._last_s = clock()
        self._num_asking = 0
        self._known: Status | None = None

    @property
    def status(self) -> ConnectionStatus:
        """What the first connection is doing."""
        return self._lanes.status if self._known is None else _RESTING

    def wake(self) -> None:
        """Begins to connect, unless connected, connecting or resting."""
        if self._known is None:
            self._lanes.wake()

    async def infill(self, context: Context, on_draft: OnDraft | None = None) -> Infill | ConnectionStatus:
        """See `EngineLanes.infill`."""
        with self._asking():
            return await self._lanes.infill(context, on_draft)

    async def trace(self, context: Context) -> Trace | ConnectionStatus:
        """See `EngineLanes.trace`."""
        with self._asking():
            return await self._lanes.trace(context)

    async def definitions(self, query: DefinitionsQuery) -> Definitions | None:
        """See `EngineLanes.definitions`; a resting engine is not waked for it."""
        return await self._lanes.definitions(query)

    @contextmanager
    def _asking(self) -> Generator[None]:
        self._known = None
        self._num_asking += 1
        try:
            yield
        finally:
            self._num_asking -= 1
            self._last_s = self._clock()

    async def about(self) -> Status | None:
        """Returns the engine's status, or its last one before its connections were closed."""
        return self._known or await self._lanes.about()

    async def rest_if_unused(self) -> None:
        """Closes the connections after `rest_s` without a completion."""
        is_unused = not self._num_asking and self._clock() - self._last_s >= self._rest_s
        if self._known is None and is_unused and self._lanes.is_ready:
            known = await self._lanes.about()
            if not self._num_asking:
                self._known = known
                self._lanes.reconfigure(self._connect)

    async def watch(self) -> None:
        """Calls `rest_if_unused` every 5 s, or every `rest_s` if that is less, until it is cancelled."""
        while True:
            await asyncio.sleep(min(_POLL_S, self._rest_s))
            await self.rest_if_unused()
