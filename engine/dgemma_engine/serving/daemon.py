"""The resident engine: one process that answers every client of one user over a local socket.

Accepts connections, announces the progress of loading, and ends on request or after the idle timeout. Does no device
work and holds no model.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import time
from typing import Any

from pygls.exceptions import JsonRpcInvalidParams

from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.json_rpc import STREAM_LIMIT_BYTES, Peer
from dgemma_engine.ipc.lock_file import EngineLock
from dgemma_engine.protocol.definition_messages import DEFINITIONS, DefinitionsQuery
from dgemma_engine.protocol.handshake import HELLO, PROTOCOL, Hello
from dgemma_engine.protocol.status_messages import PROGRESS, STATUS, STOP, EngineState, Progress
from dgemma_engine.serving.client_connection import ClientConnection
from dgemma_engine.serving.definition_worker import DefinitionWorker
from dgemma_engine.serving.device_thread import DeviceThread
from dgemma_engine.serving.engine_status import Chosen, engine_status
from dgemma_engine.serving.idle_timeout import IdleTimeout
from dgemma_engine.serving.infill_engine import Load
from dgemma_engine.serving.malloc_trim import trim_when_idle

_log = logging.getLogger(__name__)

_END_PATIENCE_S = 5.0


def run(location: EngineLocation, *, load: Load, idle_s: float | None, unload_s: float | None = None) -> int | None:
    """Serves until SIGTERM, SIGINT, a client's `engine/stop` or the idle limit. See `serve`."""

    async def serve_until_signal() -> int | None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        return await serve(location, load=load, idle_s=idle_s, unload_s=unload_s, stop=stop)

    return asyncio.run(serve_until_signal())


async def serve(
    location: EngineLocation,
    *,
    load: Load,
    idle_s: float | None,
    stop: asyncio.Event,
    unload_s: float | None = None,
    failed_linger_s: float = 10.0,
) -> int | None:
    """Serves the engine at `location` until `stop` is set.

    Args:
        location: where clients find it.
        load: makes the engine, on the device thread.
        idle_s: seconds without a client after which it ends; None for never.
        stop: ends it; also set by a client's `engine/stop` and by the idle limit.
        unload_s: see `DeviceThread`.
        failed_linger_s: seconds without a client after which an engine that could not load ends.

    Returns:
        None after a clean end; the process id of the engine that has this location already, 0 if that is unknown.

    Raises:
        SocketRefused: the location cannot be used.
    """
    location.prepare()
    lock = await EngineLock.acquire_or_holder(location.lock)
    if isinstance(lock, int):
        return lock
    with lock:
        served = _Daemon(
            location, load=load, idle_s=idle_s, stop=stop, failed_linger_s=failed_linger_s, unload_s=unload_s
        )
        await served.serve()
    return None


class _Daemon:
    def __init__(
        self,
        location: EngineLocation,
        *,
        load: Load,
        idle_s: float | None,
        stop: asyncio.Event,
        failed_linger_s: float,
        unload_s: float | None,
    ) -> None:
        self._location = location
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._started_s = time.monotonic()
        # The connections, and the tasks that read from them.
        self._peers: dict[Peer, asyncio.Task[None]] = {}
        self._owners = itertools.count(1)
        self._device = DeviceThread(
            load,
            clock=time.monotonic,
            on_progress=self._progressed_on_thread,
            on_device_lost=self._lost_on_thread,
            unload_s=unload_s,
        )
        self._idle_timeout = IdleTimeout(
            idle_s=idle_s, failed_linger_s=failed_linger_s, call_later=self._loop.call_later, end=self._end_unused
        )
        self._sent: Progress | None = None
        self._definition_worker = DefinitionWorker()

    async def serve(self) -> None:
        # The holder of the lock owns the socket's name; asyncio removes a socket that a dead process left there.
        path = str(self._location.socket)
        server = await asyncio.start_unix_server(self._connected, path=path, limit=STREAM_LIMIT_BYTES)
        self._location.socket.chmod(0o600)
        _log.info("engine %s listens on %s", os.getpid(), path)
        try:
            self._device.start()
            self._idle_timeout.update(num_clients=0, state=self._device.state)
            trimming = asyncio.create_task(
                trim_when_idle(self._num_answered, lambda: self._device.state is EngineState.BUSY)
            )
            await self._stop.wait()
            trimming.cancel()
        finally:
            self._location.socket.unlink(missing_ok=True)
            server.close()
            await self._end()

    def _num_answered(self) -> int:
        return sum(self._device.requests().values())

    async def _end(self) -> None:
        self._idle_timeout.close()
        self._device.stop()
        peers = list(self._peers)
        await asyncio.gather(*(peer.settle(_END_PATIENCE_S) for peer in peers))
        for peer in peers:
            peer.close()
        # A load cannot be interrupted, and nothing is lost by leaving it.
        patience_s = 0.0 if self._device.state is EngineState.LOADING else _END_PATIENCE_S
        if not await asyncio.to_thread(self._device.join, patience_s):
            _log.warning("the device thread is still at work; ending without it")
        _log.info("engine %s ends", os.getpid())

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests = {DEFINITIONS: self._definitions, STATUS: self._status, STOP: self._stop_engine}
        peer = ClientConnection(next(self._owners), self._device, reader, writer, requests=requests).peer
        self._peers[peer] = asyncio.create_task(peer.run())
        self._peers[peer].add_done_callback(lambda _reading: self._disconnected(peer))
        self._update_idle_timeout()
        # Not as a part of the progress: a client of an older version refuses messages with fields it does not know.
        peer.notify(HELLO, Hello(protocol=PROTOCOL).to_wire())
        peer.notify(PROGRESS, self._device.progress.to_wire())

    def _disconnected(self, peer: Peer) -> None:
        del self._peers[peer]
        self._update_idle_timeout()

    async def _definitions(self, params: Any) -> dict[str, Any]:
        try:
            query = DefinitionsQuery.from_wire(params)
        except ValueError as error:
            raise JsonRpcInvalidParams(" ".join(str(error).split())) from None
        return (await self._definition_worker.find(query)).to_wire()

    async def _status(self, params: Any) -> dict[str, Any]:
        uptime_s = time.monotonic() - self._started_s
        chosen = Chosen(model=self._location.model, device=self._location.device)
        return engine_status(self._device, chosen, uptime_s=uptime_s, num_clients=len(self._peers)).to_wire()

    async def _stop_engine(self, params: Any) -> None:
        _log.info("a client asked the engine to end")
        self._stop.set()

    def _progressed_on_thread(self, progress: Progress) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._progressed, progress)

    def _lost_on_thread(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)

    def _progressed(self, progress: Progress) -> None:
        last, self._sent = self._sent, progress
        # A loader may report each of thousands of tensors; a client needs no more than each percent.
        is_same = last is not None and (last.state, last.percent) == (progress.state, progress.percent)
        if not is_same or progress.state is not EngineState.LOADING:
            for peer in self._peers:
                peer.notify(PROGRESS, progress.to_wire())
        self._update_idle_timeout()

    def _update_idle_timeout(self) -> None:
        if not self._stop.is_set():
            self._idle_timeout.update(num_clients=len(self._peers), state=self._device.state)

    def _end_unused(self) -> None:
        _log.info("no client is left; the engine ends")
        self._stop.set()
