"""The device thread of this process as the engine of the HTTP application: no socket, no second process."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable
from dataclasses import replace

from dgemma_engine.engine_client.connection_status import ConnectionState, ConnectionStatus
from dgemma_engine.errors import EngineFault
from dgemma_engine.protocol.definition_messages import Definitions, DefinitionsQuery
from dgemma_engine.protocol.messages import Context, Draft, Infill, OnDraft
from dgemma_engine.protocol.status_messages import EngineState, Status
from dgemma_engine.protocol.trace_messages import Trace
from dgemma_engine.serving.client_connection import answer_of
from dgemma_engine.serving.definition_worker import DefinitionWorker
from dgemma_engine.serving.device_thread import DeviceThread
from dgemma_engine.serving.engine_status import Chosen, engine_status
from dgemma_engine.tracing.recorder import Recorder


class DeviceEngine:
    """A `CompletionEngine` of the HTTP server.

    Args:
        device: does the work.
        chosen: model and device, for a status.
        clock: seconds that never go backwards.
    """

    def __init__(
        self,
        device: DeviceThread,
        chosen: Chosen,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._device, self._chosen, self._clock = device, chosen, clock
        self._since_s = clock()
        self._definitions = DefinitionWorker()

    @property
    def status(self) -> ConnectionStatus:
        """What the device thread is doing."""
        if self._device.is_lost:
            return ConnectionStatus(state=ConnectionState.FAILED, message="the card is lost")
        progress = self._device.progress
        states = {EngineState.FAILED: ConnectionState.FAILED, EngineState.LOADING: ConnectionState.LOADING}
        state = states.get(progress.state, ConnectionState.READY)
        return ConnectionStatus(state=state, message=progress.message, percent=progress.percent)

    def wake(self) -> None:
        """Does nothing: the engine lives as long as its process."""

    async def infill(self, context: Context, on_draft: OnDraft | None = None) -> Infill | ConnectionStatus:
        """Answers one request; cancelling the caller cancels the work."""
        if self._device.is_lost:
            return self.status
        drafts = None if on_draft is None else _Drafts(on_draft)
        # The application drops drafts without an id: here drafts are sent exactly where there is a listener.
        wanted = context if drafts is None else replace(context, drafts="1")
        job = self._device.submit(_owner_of(context), wanted, None if drafts is None else drafts.from_thread)
        try:
            return await answer_of(job, self._device)
        except EngineFault as error:
            return ConnectionStatus(state=ConnectionState.FAILED, message=str(error))
        finally:
            if drafts is not None:
                drafts.close()

    async def trace(self, context: Context) -> Trace | ConnectionStatus:
        """Answers one request with the trace of its steps."""
        recorder = Recorder(self._clock)
        job = self._device.submit(_owner_of(context), context, recorder=recorder)
        try:
            return recorder.trace(await answer_of(job, self._device))
        except EngineFault as error:
            return ConnectionStatus(state=ConnectionState.FAILED, message=str(error))

    async def definitions(self, query: DefinitionsQuery) -> Definitions | None:
        """Returns how names are defined in a text."""
        return await self._definitions.find(query)

    async def about(self) -> Status | None:
        """Returns what the engine is and does."""
        uptime_s = self._clock() - self._since_s
        return engine_status(self._device, self._chosen, uptime_s=uptime_s, num_clients=0)


class _Drafts:
    """Passes the drafts of one request to the event loop of its caller, until it is closed."""

    def __init__(self, on_draft: OnDraft) -> None:
        self._on_draft = on_draft
        self._loop = asyncio.get_running_loop()
        self._is_closed = False

    def from_thread(self, draft: Draft) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._pass_on, draft)

    def close(self) -> None:
        self._is_closed = True

    def _pass_on(self, draft: Draft) -> None:
        if not self._is_closed:
            self._on_draft(draft)


def _owner_of(context: Context) -> int:
    """Returns the owner that a request counts for: documents take turns, as the application admits few at once."""
    return zlib.crc32(context.document.encode("utf-8", "surrogatepass"))
