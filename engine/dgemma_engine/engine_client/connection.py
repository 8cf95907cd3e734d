"""The server's one connection to an engine: made on first need, made again after the engine died, never raising.

                 wake                    attached              loaded
  DISCONNECTED ---------> STARTING --------------> LOADING ------------> READY
       ^                     | refused                | cannot load        | the engine died
       |                     v                        v                    |
       +---- pause over --- FAILED <------------------+     DISCONNECTED <-+

ABSENT is FAILED where no engine runs and none is to be started. `reconfigure` leads back to DISCONNECTED. Knows no
sockets: `connect` makes the connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

from dgemma_engine.engine_client.connection_status import ConnectionState, ConnectionStatus
from dgemma_engine.engine_client.infill_source import Connect, InfillSource
from dgemma_engine.engine_client.retry_policy import RetryPolicy
from dgemma_engine.errors import EngineFault, EngineUnavailable, NoEngine, NotNow, OutOfReach
from dgemma_engine.protocol.definition_messages import Definitions, DefinitionsQuery
from dgemma_engine.protocol.messages import Context, Infill, OnDraft
from dgemma_engine.protocol.status_messages import EngineState, Progress, Status
from dgemma_engine.protocol.trace_messages import Trace

_log = logging.getLogger(__name__)

_ENDED = "the engine has ended; the next request looks for another"
_READY = ConnectionStatus(state=ConnectionState.READY, percent=100)
_AWAY = ConnectionStatus(state=ConnectionState.DISCONNECTED)
_CLOSED = replace(_AWAY, message="the server is shutting down")
_RECONFIGURED = replace(_AWAY, message="the settings of the engine have changed; ask again")

_Answer = TypeVar("_Answer")


class EngineConnection:
    """The state machine above.

    Args:
        connect: makes the connection.
        on_status: called with every change of state or progress.
        on_fault: called with the reason for which one request failed while the connection stands.
        on_recovered: called when a request is answered after one that failed.
        clock: seconds that never go backwards.
        policy: timeouts and pauses.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        on_status: Callable[[ConnectionStatus], None],
        on_fault: Callable[[ConnectionStatus], None],
        clock: Callable[[], float],
        policy: RetryPolicy | None = None,
        on_recovered: Callable[[], None] = lambda: None,
    ) -> None:
        self._connect = connect
        self._on_status = on_status
        self._on_fault = on_fault
        self._on_recovered = on_recovered
        self._clock = clock
        self._policy = policy or RetryPolicy()
        self._source: InfillSource | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._status = ConnectionStatus(state=ConnectionState.DISCONNECTED)
        self._failures = 0
        self._not_before_s: float | None = None
        self._closed = self._is_faulty = False
        self._changed = asyncio.Event()

    @property
    def status(self) -> ConnectionStatus:
        """What the connection is doing."""
        return self._status

    @property
    def is_ready(self) -> bool:
        """Whether an engine with a loaded model is connected."""
        return self._status.state is ConnectionState.READY

    def reconfigure(self, connect: Connect) -> None:
        """Replaces the function that connects; closes the present connection, or the one that is being made.

        Args:
            connect: makes the connection.
        """
        self._connect, self._failures, self._not_before_s = connect, 0, None
        self._drop()
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        self._set(ConnectionStatus(state=ConnectionState.DISCONNECTED))
        self._wake_waiters()

    def wake(self) -> None:
        """Begins to connect, unless connected, connecting, or in the pause after a failure."""
        idle = self._source is None and self._connecting is None and not self._closed
        if idle and (self._not_before_s is None or self._clock() >= self._not_before_s):
            self._connecting = asyncio.create_task(self._clearing(partial(self._open, self._connect)))

    async def settled(self, wait_ms: float) -> None:
        """Begins to connect if need be, and waits until an engine that is starting is loaded or has failed.

        Args:
            wait_ms: at most this long; 0 does not wait.
        """
        self.wake()
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_ms / 1_000):
                while self._connecting is not None or self._status.state is ConnectionState.LOADING:
                    await self._changed.wait()

    def infill(self, context: Context, on_draft: OnDraft | None = None) -> Awaitable[Infill | ConnectionStatus]:
        """Answers one question, or returns the status that prevents an answer. Cancelling the caller cancels the work.

        Args:
            context: the question.
            on_draft: called with the drafts on the way to the answer; None asks for none.
        """
        return self._ask(lambda source: source.infill(context, on_draft), context.deadline_ms)

    def trace(self, context: Context) -> Awaitable[Trace | ConnectionStatus]:
        """Answers one question with the trace of its steps."""
        return self._ask(lambda source: source.trace(context), context.deadline_ms)

    async def _ask(
        self, work: Callable[[InfillSource], Awaitable[_Answer]], deadline_ms: float
    ) -> _Answer | ConnectionStatus:
        self.wake()
        if self._connecting is not None:
            await asyncio.wait([self._connecting], timeout=self._policy.connect_ms / 1_000)
        source, connect = self._source, self._connect
        if source is None or not self.is_ready:
            return _CLOSED if self._closed else self._status
        try:
            async with asyncio.timeout((deadline_ms + self._policy.grace_ms) / 1_000):
                answer = await work(source)
        except TimeoutError:
            return self._fault("the engine is busy and did not answer in time; if that lasts: dgemma-engine stop")
        except NotNow as error:
            return self._fault(str(error), ConnectionState.ABSENT) if self.is_ready else self._status
        except EngineFault as error:
            return self._fault(str(error))
        except EngineUnavailable as error:
            if self._closed or self._connect is not connect:
                return _CLOSED if self._closed else _RECONFIGURED
            if isinstance(error, OutOfReach):
                self._lose(source, error)
                return ConnectionStatus(state=ConnectionState.ABSENT, message=str(error))
            if self._source is not source and self._status.state is ConnectionState.ABSENT:
                return self._status  # Another question has found it out of reach.
            self._lose(source)
            fault = self._fault(_ENDED)
            self.wake()
            return fault
        except Exception as error:
            # Its message may quote the user's text.
            _log.error("a request to the engine failed with %s", type(error).__name__)
            return self._fault(f"a request to the engine failed ({type(error).__name__})")
        was_faulty, self._is_faulty, self._failures = self._is_faulty, False, 0
        if was_faulty:
            self._on_recovered()
        return answer

    async def definitions(self, query: DefinitionsQuery) -> Definitions | None:
        """Returns how names are defined in a text; None without an engine that answers. Starts none."""
        return None if self._source is None else await _or_none(self._source.definitions(query))

    async def about(self) -> Status | None:
        """Returns what the engine is and does; None without an engine that answers. Starts none."""
        return None if self._source is None else await _or_none(self._source.status())

    async def close(self) -> None:
        """Ends the connection for good; the engine stays."""
        self._closed = True
        self._drop()
        connecting, self._connecting = self._connecting, None
        self._wake_waiters()
        if connecting is not None:
            connecting.cancel()
            await asyncio.wait([connecting])
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def _clearing(self, work: Callable[[], Awaitable[None]]) -> None:
        """Runs the work of the task `_connecting`, and clears it; a task cancelled before it runs begins no work."""
        try:
            await work()
        finally:
            if self._connecting is asyncio.current_task():
                self._connecting = None
                self._wake_waiters()

    async def _open(self, connect: Connect) -> None:
        self._set(ConnectionStatus(state=ConnectionState.STARTING, message="looking for an engine"))
        closed: list[OutOfReach | None] = []

        def on_progress(progress: Progress) -> None:
            if self._connect is connect and (source is None or self._source is source):
                self._progressed(progress)

        def on_closed(why: OutOfReach | None = None) -> None:
            closed.append(why)
            if source is not None:
                self._lose(source, why)

        source: InfillSource | None = None
        try:
            source = await connect(on_progress=on_progress, on_closed=on_closed)
        except (EngineUnavailable, EngineFault) as error:
            is_absent = isinstance(error, NoEngine | OutOfReach | NotNow)
            self._fail(str(error), ConnectionState.ABSENT if is_absent else ConnectionState.FAILED)
            return
        except Exception as error:
            _log.error("connecting to the engine failed with %s", type(error).__name__)
            self._fail(f"cannot connect to the engine ({error})")
            return
        self._source = source
        if closed:
            self._lose(source, closed[0])
        elif self._status.state is ConnectionState.STARTING:
            self._set(_READY)
        elif self._status.state is ConnectionState.FAILED:
            self._drop()

    def _progressed(self, progress: Progress) -> None:
        if self._closed:
            return
        if progress.state is EngineState.FAILED:
            self._fail(progress.message)
            self._drop()
        elif progress.state is EngineState.LOADING:
            message, percent = progress.message, progress.percent
            self._set(ConnectionStatus(state=ConnectionState.LOADING, message=message, percent=percent))
        else:
            self._set(replace(_READY, message=progress.message))

    def _drop(self) -> None:
        """Closes the present connection in the background."""
        source, self._source = self._source, None
        if source is not None:
            task = asyncio.create_task(_close(source))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _lose(self, source: InfillSource, why: OutOfReach | None = None) -> None:
        """Drops a lost connection; counts a failure if the engine ended without an answer on it."""
        if self._source is not source:
            return
        self._drop()
        if why is not None:
            self._fail(str(why), ConnectionState.ABSENT)
        elif self.is_ready and self._failures == 0:
            # Counts as a failure until the next engine has answered: one that dies on every request must not spin.
            self._failures = 1
            self._set(ConnectionStatus(state=ConnectionState.DISCONNECTED, message=_ENDED))
        else:
            self._fail(_ENDED)

    def _fail(self, message: str, state: ConnectionState = ConnectionState.FAILED) -> None:
        pause_s = self._policy.absent_pause_s if state is ConnectionState.ABSENT else self._policy.pause_s
        self._not_before_s = self._clock() + pause_s(self._failures)
        self._failures += 1
        self._set(ConnectionStatus(state=state, message=message))

    def _fault(self, message: str, state: ConnectionState = ConnectionState.FAILED) -> ConnectionStatus:
        """Reports a request that failed on a connection that stands."""
        fault = ConnectionStatus(state=state, message=message)
        self._is_faulty = True
        self._on_fault(fault)
        return fault

    def _set(self, status: ConnectionStatus) -> None:
        if status != self._status and not self._closed:
            self._status = status
            self._wake_waiters()
            self._on_status(status)

    def _wake_waiters(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


async def _or_none(answer: Awaitable[_Answer]) -> _Answer | None:
    with suppress(EngineFault, EngineUnavailable):
        return await answer


async def _close(source: InfillSource) -> None:
    with suppress(OSError, EngineUnavailable, EngineFault):
        await source.close()
