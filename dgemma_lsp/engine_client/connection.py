"""The server's one connection to an engine: made on first need, made again after the engine died, never raising.

                 wake                    attached              loaded
  DISCONNECTED ---------> STARTING --------------> LOADING ------------> READY
       ^                     | refused                | cannot load        | the engine died
       |                     v                        v                    |
       +---- pause over --- FAILED <------------------+     DISCONNECTED <-+

ABSENT is FAILED where no engine runs and none is to be started.

Knows no protocol types and no sockets: `connect` makes the connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from dgemma_engine.ipc.client import EngineFault, EngineUnavailable, NoEngine
from dgemma_engine.protocol.definition_messages import Definitions, DefinitionsQuery
from dgemma_engine.protocol.messages import Context, Draft, EngineState, Infill, Progress, Status

_log = logging.getLogger(__name__)

_ENDED = "the engine has ended; the next request looks for another"


class LinkState(Enum):
    """How far the connection is."""

    DISCONNECTED = "disconnected"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatus:
    """What the link is doing; what it answers in place of an `Infill`.

    Attributes:
        state: how far the connection is.
        message: one line for a person; for `FAILED` it names the cause and the remedy.
        percent: load progress, 0 to 100.
    """

    state: LinkState
    message: str = ""
    percent: int = 0


class InfillSource(Protocol):
    """An engine that one is connected to; `EngineClient` is one."""

    async def infill(self, context: Context, on_draft: Callable[[Draft], None] | None = None) -> Infill:
        """Answers one question, telling what the text looks like on the way; cancelling the caller cancels the work."""
        ...

    async def definitions(self, query: DefinitionsQuery) -> Definitions:
        """Says how names are defined in a text."""
        ...

    async def status(self) -> Status:
        """Says what the engine is and does."""
        ...

    async def close(self) -> None:
        """Ends the connection."""
        ...


class Connect(Protocol):
    """Makes the connection."""

    def __call__(
        self, *, on_progress: Callable[[Progress], None], on_closed: Callable[[], None]
    ) -> Awaitable[InfillSource]:
        """Connects, or raises `EngineUnavailable`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the link waits for what.

    Attributes:
        connect_ms: a request waits this long for a connection under way: 0 answers at once with nothing, large
            holds the first answers back.
        grace_ms: what an engine may take beyond a request's deadline before it is given up.
        first_pause_s: pause after the first failed attempt to connect; doubled after each further one.
        longest_pause_s: most it grows to.
    """

    connect_ms: float = 300.0
    grace_ms: float = 2_000.0
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.first_pause_s <= self.longest_pause_s:
            raise ValueError(f"0 < {self.first_pause_s=} <= {self.longest_pause_s=} must hold")


class EngineLink:
    """The state machine above.

    Args:
        connect: makes the connection.
        on_status: told every change of state or progress.
        clock: seconds that never go backwards.
        patience: how long to wait for what.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        on_status: Callable[[LinkStatus], None],
        clock: Callable[[], float],
        patience: Patience | None = None,
    ) -> None:
        self._connect = connect
        self._on_status = on_status
        self._clock = clock
        self._patience = patience or Patience()
        self._source: InfillSource | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._status = LinkStatus(state=LinkState.DISCONNECTED)
        self._failures = 0
        self._not_before_s = 0.0
        self._closed = False
        self._news = asyncio.Event()

    @property
    def status(self) -> LinkStatus:
        """What the link is doing."""
        return self._status

    def wake(self) -> None:
        """Begins to connect, unless connected, connecting, or in the pause after a failure."""
        idle = self._source is None and self._connecting is None
        if idle and not self._closed and self._clock() >= self._not_before_s:
            self._connecting = asyncio.create_task(self._open())

    async def settled(self, wait_ms: float) -> None:
        """Begins to connect if need be, and waits until an engine that is starting is loaded or has failed.

        Args:
            wait_ms: at most so long: 0 waits for nothing.
        """
        self.wake()
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_ms / 1_000):
                while self._connecting is not None or self._status.state is LinkState.LOADING:
                    await self._news.wait()

    async def infill(self, context: Context, on_draft: Callable[[Draft], None] | None = None) -> Infill | LinkStatus:
        """Answers one question, or says what stands in the way. Cancelling the caller cancels the work.

        Args:
            context: the question.
            on_draft: told what the text looks like on the way to the answer; None wants no drafts.
        """
        self.wake()
        if self._connecting is not None:
            await asyncio.wait([self._connecting], timeout=self._patience.connect_ms / 1_000)
        source = self._source
        if source is None or self._status.state is not LinkState.READY:
            return self._status
        try:
            async with asyncio.timeout((context.deadline_ms + self._patience.grace_ms) / 1_000):
                infill = await source.infill(context, on_draft)
        except TimeoutError:
            return self._fault("the engine is busy and did not answer in time; if that lasts: dgemma-engine stop")
        except EngineFault as error:
            return self._fault(str(error))
        except EngineUnavailable:
            self._lose(source)
            fault = self._fault(_ENDED)
            self.wake()
            return fault
        except Exception as error:
            # Its message may quote the user's text.
            _log.error("a request to the engine failed with %s", type(error).__name__)
            return self._fault(f"a request to the engine failed ({type(error).__name__})")
        self._failures = 0
        return infill

    async def definitions(self, query: DefinitionsQuery) -> Definitions | None:
        """Says how names are defined in a text; None if there is no engine or it will not say. Starts none."""
        try:
            return None if self._source is None else await self._source.definitions(query)
        except (EngineFault, EngineUnavailable):
            return None

    async def about(self) -> Status | None:
        """Says what the engine is and does; None if there is none or it will not say. Starts none."""
        try:
            return None if self._source is None else await self._source.status()
        except (EngineFault, EngineUnavailable):
            return None

    async def close(self) -> None:
        """Ends the connection for good; the engine stays."""
        self._closed = True
        source, self._source = self._source, None
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if source is not None:
            await _close(source)

    async def _open(self) -> None:
        try:
            await self._open_source()
        finally:
            self._connecting = None
            self._tell_news()

    async def _open_source(self) -> None:
        self._set(LinkStatus(state=LinkState.STARTING, message="looking for an engine"))
        ended = False

        def on_closed() -> None:
            nonlocal ended
            ended = True
            if source is not None:
                self._lose(source)

        source: InfillSource | None = None
        try:
            source = await self._connect(on_progress=self._progressed, on_closed=on_closed)
        except (EngineUnavailable, EngineFault) as error:
            self._fail(str(error), LinkState.ABSENT if isinstance(error, NoEngine) else LinkState.FAILED)
            return
        except Exception as error:
            _log.error("connecting to the engine failed with %s", type(error).__name__)
            self._fail(f"no connection to the engine ({error})")
            return
        self._source = source
        if ended:
            self._lose(source)
        elif self._status.state is LinkState.STARTING:
            self._set(LinkStatus(state=LinkState.READY, percent=100))
        elif self._status.state is LinkState.FAILED:
            await self._drop()

    def _progressed(self, progress: Progress) -> None:
        if self._closed:
            return
        if progress.state is EngineState.FAILED:
            self._fail(progress.message)
            if self._connecting is None:
                self._connecting = asyncio.create_task(self._drop_failed())
        elif progress.state is EngineState.LOADING:
            self._set(LinkStatus(state=LinkState.LOADING, message=progress.message, percent=progress.percent))
        else:
            self._set(LinkStatus(state=LinkState.READY, percent=100))

    async def _drop_failed(self) -> None:
        try:
            await self._drop()
        finally:
            self._connecting = None
            self._tell_news()

    async def _drop(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            await _close(source)

    def _lose(self, source: InfillSource) -> None:
        """Takes note that a connection is over; a failure if the engine never answered on it."""
        if self._source is not source:
            return
        self._source = None
        if self._status.state is LinkState.READY and self._failures == 0:
            # Counts as a failure until the next engine has answered: one that dies on every request must not spin.
            self._failures = 1
            self._set(LinkStatus(state=LinkState.DISCONNECTED, message=_ENDED))
        else:
            self._fail(_ENDED)

    def _fail(self, message: str, state: LinkState = LinkState.FAILED) -> None:
        pause_s = min(self._patience.first_pause_s * 2**self._failures, self._patience.longest_pause_s)
        self._failures += 1
        self._not_before_s = self._clock() + pause_s
        self._set(LinkStatus(state=state, message=message))

    def _fault(self, message: str) -> LinkStatus:
        """Tells of a request that failed on a connection that stands."""
        fault = LinkStatus(state=LinkState.FAILED, message=message)
        self._on_status(fault)
        return fault

    def _set(self, status: LinkStatus) -> None:
        if status != self._status and not self._closed:
            self._status = status
            self._tell_news()
            self._on_status(status)

    def _tell_news(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


async def _close(source: InfillSource) -> None:
    with suppress(OSError, EngineUnavailable, EngineFault):
        await source.close()
