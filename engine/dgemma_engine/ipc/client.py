"""The editor side's way to the engine: attach to the one that runs, or start it.

Turns `Context` into `Infill` over the local socket, with drafts on the way for who wants them. Needs no torch. Every
fault is an `EngineError`; an engine that loads is not a fault.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from pygls.exceptions import JsonRpcException, JsonRpcMethodNotFound

from dgemma_engine.errors import (
    EngineFault,
    EngineSilent,
    EngineUnavailable,
    NewerEngine,
    NoEngine,
    OlderEngine,
    SocketRefused,
)
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.json_rpc import STREAM_LIMIT_BYTES, Peer
from dgemma_engine.ipc.launcher import Launch, engine_command
from dgemma_engine.ipc.lock_file import holder_pid
from dgemma_engine.ipc.silent_engine import end_unused, find_silent, no_answer
from dgemma_engine.protocol.handshake import HELLO, Hello
from dgemma_engine.protocol.messages import (
    DEFINITIONS,
    DRAFT,
    INFILL,
    PROGRESS,
    STATUS,
    STOP,
    Context,
    Definitions,
    DefinitionsQuery,
    Draft,
    EngineState,
    Infill,
    Progress,
    Status,
)
from dgemma_engine.protocol.trace_messages import TRACE, Trace

_START_HINT = "start one with: dgemma-engine start"
_RESTART_HINT = "restart it: dgemma-engine stop"
_INSTALL_HINT = "is it installed? pip install 'dgemma-lsp[engine]'"
# Looks at an older engine until it counts as used by others, and the longest pause after the first of them.
_IN_USE_LOOKS = 6
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
_END_PATIENCE_S = 10.0
_Answer = TypeVar("_Answer", Definitions, Infill, Status, Trace)


class EngineClient:
    """A connection to a running engine. Belongs to the event loop that it was made on. Made by `attach*`."""

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
        self._draft_listeners: dict[str, Callable[[Draft], None]] = {}
        self._hello = Hello()
        told = {HELLO: self._greeted, PROGRESS: self._progressed, DRAFT: self._drafted}
        self._peer = Peer(reader, writer, notifications=told)
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def attach(
        cls,
        location: EngineLocation,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        on_closed: Callable[[], None] | None = None,
        timeout_s: float = 5.0,
    ) -> Self:
        """Connects to the engine that runs at `location`; it may still be loading.

        Args:
            location: where to look for it.
            on_progress: told the engine's progress on connecting and whenever it changes.
            on_closed: told once when the connection ends without `close`.
            timeout_s: patience with an engine that accepts a connection and says nothing.

        Raises:
            NoEngine: none runs there.
            EngineSilent: one runs there and cannot be reached.
            OlderEngine: it speaks an older protocol.
            NewerEngine: it speaks a newer protocol.
            EngineUnavailable: it says nothing.
            SocketRefused: the directory or the socket belongs to someone else.
        """
        client = await cls.attach_any(location, on_progress=on_progress, timeout_s=timeout_s)
        try:
            client.hello.verify()
        except EngineUnavailable:
            await client.close()
            raise
        # Only now: an attempt that fails (on an engine that is just dying, say) is told by its exception alone.
        client._on_closed = on_closed
        if client._reading.done() and on_closed is not None:
            on_closed()
        return client

    @classmethod
    async def attach_any(
        cls,
        location: EngineLocation,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        timeout_s: float = 5.0,
    ) -> Self:
        """Connects to the engine that runs at `location`, of whatever version: to look at it or to end it.

        Args:
            location: see `attach`.
            on_progress: see `attach`.
            timeout_s: see `attach`.

        Raises:
            NoEngine: none runs there.
            EngineSilent: one runs there and cannot be reached.
            EngineUnavailable: it says nothing.
            SocketRefused: the directory or the socket belongs to someone else.
        """
        location.verify()
        if (silent := find_silent(location)) is not None:
            raise EngineSilent(str(silent))
        try:
            reader, writer = await asyncio.open_unix_connection(location.socket, limit=STREAM_LIMIT_BYTES)
        except OSError as error:
            raise NoEngine(f"no engine answers on {location.socket}; {_START_HINT}") from error
        client = cls(location, reader, writer, on_progress=on_progress)
        try:
            await client._await_progress(lambda _: True, timeout_s)
        except TimeoutError:
            await client.close()
            raise no_answer(location, timeout_s) from None
        except BaseException:
            await client.close()
            raise
        return client

    @classmethod
    async def attach_or_start(
        cls,
        location: EngineLocation,
        *,
        command: Sequence[str] | None = None,
        idle_minutes: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_closed: Callable[[], None] | None = None,
        timeout_s: float = 30.0,
    ) -> Self:
        """Connects to the engine at `location`, after starting one when none answers. Does not wait for the model.

        One of an older version, or that cannot be reached, is ended first where nobody else uses it.

        Args:
            location: where the engine lives.
            command: command line that runs it; None is `engine_command`.
            idle_minutes: see `engine_command`.
            on_progress: see `attach`.
            on_closed: see `attach`.
            timeout_s: patience with a new process until it answers.

        Raises:
            OlderEngine: the one that runs speaks an older protocol, and others use it.
            EngineSilent: the one that runs cannot be reached, and others use it.
            NewerEngine: the one that runs speaks a newer protocol.
            EngineUnavailable: it ended at once, or does not answer in time.
            SocketRefused: the directory cannot be used.
        """
        loop = asyncio.get_running_loop()
        give_up_s, num_looks = loop.time() + timeout_s, 0
        launch: Launch | None = None
        while True:
            try:
                return await cls.attach(location, on_progress=on_progress, on_closed=on_closed)
            except (SocketRefused, NewerEngine):
                raise
            except OlderEngine:
                num_looks += 1
                if not await cls._end_unused(location) and num_looks >= _IN_USE_LOOKS:
                    raise
                # Windows of this version that look at the same time see each other; so they look at times further and
                # further apart, however long a look takes on a busy machine.
                most_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**num_looks)
                await asyncio.sleep(random.SystemRandom().uniform(0.02, most_s))
                continue
            except EngineSilent:
                if loop.time() > give_up_s or not await end_unused(location):
                    raise
                continue
            except EngineUnavailable:
                if loop.time() > give_up_s:
                    raise no_answer(location, timeout_s) from None
            if launch is None or launch.exit_code == 0:
                # Exit code 0 before an answer: another engine was ending or starting; ask again.
                location.prepare()
                launch = _launch(location, command or engine_command(location, idle_minutes=idle_minutes))
            elif launch.exit_code is not None:
                reason = launch.last_line().removeprefix("dgemma-engine: ") or f"exit code {launch.exit_code}"
                if launch.exit_code == 2:
                    # Wrong usage: the reason says what to do.
                    raise EngineUnavailable(reason)
                raise EngineUnavailable(f"the engine ended at once ({reason}); {_INSTALL_HINT}; log: {location.log}")
            await asyncio.sleep(0.05)

    @classmethod
    async def _end_unused(cls, location: EngineLocation) -> bool:
        """Ends an engine that has no other client and waits for its lock; returns whether it had none."""
        try:
            async with await cls.attach_any(location) as client:
                # Read as it is: an older version says other things of itself, but this one.
                status = await client._request(STATUS, {})
                if not isinstance(status, dict) or cast("dict[str, object]", status).get("clients") != 1:
                    return False
                await client.stop_engine()
        except (EngineFault, EngineUnavailable):
            return False
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + _END_PATIENCE_S
        while holder_pid(location.lock) is not None:
            if loop.time() > give_up_s:
                break
            await asyncio.sleep(0.02)
        return True

    @property
    def hello(self) -> Hello:
        """What the engine said first."""
        return self._hello

    async def infill(self, context: Context, on_draft: Callable[[Draft], None] | None = None) -> Infill:
        """Asks for the text at the cursor. Cancelling the caller cancels the request in the engine.

        Args:
            context: the question; its `drafts` is chosen here.
            on_draft: told what the text looks like on the way, newest last, never after the answer; a slow caller is
                not told everything. None asks for no drafts.

        Raises:
            EngineFault: the engine answered with an error.
            EngineUnavailable: the connection ended before the answer.
        """
        drafts = "" if on_draft is None else uuid.uuid4().hex
        if on_draft is not None:
            self._draft_listeners[drafts] = on_draft
        try:
            wire = await self._request(INFILL, context.to_wire() | {"drafts": drafts})
        finally:
            self._draft_listeners.pop(drafts, None)
        return _read_answer(Infill.from_wire, wire)

    async def trace(self, context: Context) -> Trace:
        """Asks for the text at the cursor with all that led to it. Cancelling the caller cancels the request.

        Raises:
            EngineFault: the engine answered with an error; one of an older version does not know the question.
            EngineUnavailable: the connection ended before the answer.
        """
        return _read_answer(Trace.from_wire, await self._request(TRACE, context.to_wire()))

    async def definitions(self, query: DefinitionsQuery) -> Definitions:
        """Asks how names are defined in a text; answered while the engine loads too.

        Raises:
            EngineFault: the engine answered with an error; one of an older version does not know the question.
            EngineUnavailable: the connection ended before the answer.
        """
        wire = await self._request(DEFINITIONS, query.to_wire())
        return _read_answer(Definitions.from_wire, wire)

    async def status(self) -> Status:
        """Asks what the engine is doing; answered while it loads too.

        Raises:
            EngineFault: the engine answered with an error.
            EngineUnavailable: the connection ended before the answer.
        """
        wire = await self._request(STATUS, {})
        return _read_answer(Status.from_wire, wire)

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
        """Asks the engine to end; it answers first and ends for all its clients.

        Raises:
            EngineFault: the engine answered with an error.
            EngineUnavailable: the connection ended before the answer.
        """
        await self._request(STOP, {})

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

    async def _request(self, method: str, params: dict[str, Any]) -> Any:
        try:
            return await self._peer.request(method, params)
        except ConnectionError as error:
            raise EngineUnavailable(f"the engine on {self._location.socket} has ended; {_START_HINT}") from error
        except JsonRpcMethodNotFound as error:
            raise EngineFault(f"the engine is of an older version and knows no {method}; {_RESTART_HINT}") from error
        except JsonRpcException as error:
            raise EngineFault(error.message) from None

    async def _await_progress(self, reached: Callable[[Progress], bool], timeout_s: float) -> Progress:
        async with asyncio.timeout(timeout_s):
            while not self._peer.ended and (self._progress is None or not reached(self._progress)):
                await self._changed.wait()
        if self._progress is None or not reached(self._progress):
            raise EngineUnavailable(f"the engine on {self._location.socket} has ended; {_START_HINT}")
        return self._progress

    def _greeted(self, params: Any) -> None:
        self._hello = Hello.from_wire(params)

    def _progressed(self, params: Any) -> None:
        self._progress = Progress.from_wire(params)
        self._tell_waiters()
        if self._on_progress is not None:
            self._on_progress(self._progress)

    def _drafted(self, params: Any) -> None:
        draft = Draft.from_wire(params)
        # Nobody listens for a draft that crossed the cancellation of its request on the way.
        if (listener := self._draft_listeners.get(draft.request)) is not None:
            listener(draft)

    async def _read(self) -> None:
        await self._peer.run()
        self._tell_waiters()
        if self._on_closed is not None and not self._closing:
            self._on_closed()

    def _tell_waiters(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _launch(location: EngineLocation, command: Sequence[str]) -> Launch:
    try:
        return Launch(location, command)
    except OSError as error:
        raise EngineUnavailable(f"{command[0]}: cannot be run ({error.strerror}); {_INSTALL_HINT}") from error


def _read_answer(from_wire: Callable[[Any], _Answer], wire: Any) -> _Answer:
    try:
        return from_wire(wire)
    except ValueError as error:
        raise EngineFault(f"the engine's answer cannot be read ({error}); {_RESTART_HINT}") from error
