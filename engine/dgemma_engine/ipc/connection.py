"""One connection to a running engine: requests and their answers, drafts, progress.

Turns `Context` into `Infill` over the local socket, with drafts on the way for callers that want them. Needs no torch.
Every fault is an `EngineError`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from pygls.exceptions import JsonRpcException, JsonRpcMethodNotFound

from dgemma_engine.errors import EngineFault, EngineUnavailable
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.json_rpc import Peer
from dgemma_engine.protocol.definition_messages import DEFINITIONS, Definitions, DefinitionsQuery
from dgemma_engine.protocol.handshake import HELLO, Hello
from dgemma_engine.protocol.messages import DRAFT, INFILL, Context, Draft, Infill, OnDraft
from dgemma_engine.protocol.status_messages import PROGRESS, STATUS, STOP, EngineState, Progress, Status
from dgemma_engine.protocol.trace_messages import TRACE, Trace

_Answer = TypeVar("_Answer")


class SocketConnection:
    """A connection to a running engine. Belongs to the event loop that it was made on.

    Every request raises `EngineFault` if the engine answered with an error (an older version knows fewer requests), and
    `EngineUnavailable` if the connection ended before the answer.

    Args:
        location: where the engine listens.
        reader: of the open socket.
        writer: of the same.
        on_progress: receives the engine's progress whenever it changes.
    """

    def __init__(
        self,
        location: EngineLocation,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._location = location
        self._on_progress = on_progress
        self._on_closed: Callable[[], None] | None = None
        self._closing = False
        self._progress: Progress | None = None
        self._changed = asyncio.Event()
        self._draft_listeners: dict[str, OnDraft] = {}
        self._hello = Hello()
        notifications = {HELLO: self._greeted, PROGRESS: self._progressed, DRAFT: self._drafted}
        self._peer = Peer(reader, writer, notifications=notifications)
        self._reading = asyncio.create_task(self._peer.run())
        self._reading.add_done_callback(self._ended)

    @property
    def hello(self) -> Hello:
        """The engine's greeting: its protocol."""
        return self._hello

    async def infill(self, context: Context, on_draft: OnDraft | None = None) -> Infill:
        """Asks for the text at the cursor. Cancelling the caller cancels the request in the engine.

        Args:
            context: the request; its `drafts` is chosen here.
            on_draft: receives the text on the way, newest last, never after the answer; a slow caller does not get
                every draft. None asks for no drafts.
        """
        drafts = "" if on_draft is None else uuid.uuid4().hex
        if on_draft is not None:
            self._draft_listeners[drafts] = on_draft
        try:
            return await self._request(INFILL, context.to_wire() | {"drafts": drafts}, Infill.from_wire)
        finally:
            self._draft_listeners.pop(drafts, None)

    async def trace(self, context: Context) -> Trace:
        """Asks for the text at the cursor with the trace of its steps. Cancelling the caller cancels the request."""
        return await self._request(TRACE, context.to_wire(), Trace.from_wire)

    async def definitions(self, query: DefinitionsQuery) -> Definitions:
        """Asks how names are defined in a text; answered while the engine loads too."""
        return await self._request(DEFINITIONS, query.to_wire(), Definitions.from_wire)

    async def status(self) -> Status:
        """Asks what the engine is doing; answered while it loads too."""
        return await self._request(STATUS, {}, Status.from_wire)

    async def wait_ready(self, timeout_s: float) -> Status:
        """Waits until the model is loaded.

        Raises:
            EngineUnavailable: the model cannot be loaded (with the engine's message), the connection ended, or
                `timeout_s` passed.
        """
        try:
            progress = await self._await_progress(lambda progress: progress.state is not EngineState.LOADING, timeout_s)
        except TimeoutError:
            raise EngineUnavailable(
                f"the model was not loaded within {timeout_s:g} s; see {self._location.log}"
            ) from None
        if progress.state is EngineState.FAILED:
            raise EngineUnavailable(progress.message)
        return await self.status()

    async def stop_engine(self) -> None:
        """Asks the engine to end; it answers first and ends for all its clients."""
        await self._request(STOP, {}, lambda _: None)

    async def close(self) -> None:
        """Ends the connection; the engine stays. Requests under way fail with `EngineUnavailable`."""
        self._closing = True
        self._peer.close()
        await self._reading

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _request(self, method: str, params: dict[str, Any], read: Callable[[Any], _Answer]) -> _Answer:
        try:
            return read(await self._peer.request(method, params))
        except ConnectionError as error:
            raise self._has_ended() from error
        except JsonRpcMethodNotFound as error:
            raise EngineFault(f"the engine is of an older version and knows no {method}; {self._restart}") from error
        except JsonRpcException as error:
            raise EngineFault(error.message) from None
        except ValueError as error:
            raise EngineFault(f"the engine's answer cannot be read ({error}); {self._restart}") from error

    async def _await_progress(self, reached: Callable[[Progress], bool], timeout_s: float) -> Progress:
        async with asyncio.timeout(timeout_s):
            while not self._peer.ended and (self._progress is None or not reached(self._progress)):
                await self._changed.wait()
        if self._progress is None or not reached(self._progress):
            raise self._has_ended()
        return self._progress

    def _has_ended(self) -> EngineUnavailable:
        location = self._location
        return EngineUnavailable(f"the engine on {location.socket} has ended; start one with: {location.start_command}")

    @property
    def _restart(self) -> str:
        return f"restart it: {self._location.stop_command if self._location.model else 'dgemma-engine stop'}"

    def _greeted(self, params: Any) -> None:
        self._hello = Hello.from_wire(params)

    def _progressed(self, params: Any) -> None:
        self._progress = Progress.from_wire(params)
        self._tell_waiters()
        if self._on_progress is not None:
            self._on_progress(self._progress)

    def _drafted(self, params: Any) -> None:
        draft = Draft.from_wire(params)
        # A draft that crossed the cancellation of its request has no listener any more.
        if (listener := self._draft_listeners.get(draft.request)) is not None:
            listener(draft)

    def _ended(self, _reading: asyncio.Task[None]) -> None:
        self._tell_waiters()
        if self._on_closed is not None and not self._closing:
            self._on_closed()

    def _tell_waiters(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
