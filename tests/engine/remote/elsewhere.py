"""The real front door, and a `RemoteEngine` that is connected to it through a network that a test can spoil."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from dgemma_engine.http_api.http_settings import HttpSettings
from dgemma_engine.protocol.messages import Context, Progress
from dgemma_engine.remote.connect import connect_remote
from dgemma_engine.remote.remote_engine import RemoteEngine
from dgemma_engine.remote.remote_location import RemoteLocation

from tests.engine.http_api.front_door import FREE_PORT, AnsweringEngine, FrontDoor, front_door

Transform = Callable[[bytes], bytes | None]
"""Returns what of a piece goes on; None ends the connection at once."""


def whole(data: bytes) -> bytes | None:
    return data


@dataclass
class Network:
    """Hands connections on to a port; counts them and what they carry.

    Attributes:
        port: where it listens.
        to_engine: what becomes of pieces on the way there.
        from_engine: likewise on the way back.
        delay_s: seconds that each piece takes, in each direction.
        num_connections: made so far.
        sent: pieces that reached the engine.
    """

    target: int
    port: int = 0
    to_engine: Transform = whole
    from_engine: Transform = whole
    delay_s: float = 0.0
    num_connections: int = 0
    sent: list[bytes] = field(default_factory=list[bytes])
    _tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        with suppress(OSError):
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
            ways = (
                self._carry(reader, there_writer, lambda data: self.to_engine(data), self.sent),
                self._carry(there_reader, writer, lambda data: self.from_engine(data), None),
            )
            tasks = [asyncio.create_task(way) for way in ways]
            self._tasks.update(tasks)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._tasks.difference_update(tasks)
            for one in (writer, there_writer):
                one.transport.abort()

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        transform: Transform,
        record: list[bytes] | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due_s, data = await pieces.get()
                if (left_s := due_s - loop.time()) > 0:
                    await asyncio.sleep(left_s)
                if not data:
                    return
                if record is not None:
                    record.append(data)
                changed = transform(data)
                if changed is None:
                    return
                writer.write(changed)

        delivering = asyncio.create_task(deliver())
        try:
            data = b"-"
            while data and not delivering.done():
                reading = asyncio.ensure_future(reader.read(2**16))
                await asyncio.wait((reading, delivering), return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    reading.cancel()
                    break
                with suppress(OSError):
                    data = reading.result()
                    pieces.put_nowait((loop.time() + self.delay_s, data))
                    continue
                break
            await delivering
        finally:
            delivering.cancel()

    def cut(self) -> None:
        """Ends every connection that is open."""
        for task in list(self._tasks):
            task.cancel()


@dataclass
class Elsewhere:
    """An engine, its front door, the network to it and the client."""

    engine: AnsweringEngine
    door: FrontDoor
    network: Network
    remote: RemoteEngine
    progress: list[Progress]
    num_closed: int = 0


@asynccontextmanager
async def network_to(port: int) -> AsyncIterator[Network]:
    """Gives a network whose other end is a port."""
    network = Network(target=port)
    server = await asyncio.start_server(network.accept, "127.0.0.1", 0)
    network.port = server.sockets[0].getsockname()[1]
    try:
        yield network
    finally:
        server.close()
        network.cut()


@asynccontextmanager
async def elsewhere(
    engine: AnsweringEngine | None = None, settings: HttpSettings = FREE_PORT, **location: Any
) -> AsyncIterator[Elsewhere]:
    """Gives a client that is connected through a network."""
    async with front_door(engine, settings) as door, network_to(door.port) as network:
        progress: list[Progress] = []
        place = RemoteLocation(url=f"http://127.0.0.1:{network.port}", **location)
        closed: list[int] = []
        remote = await connect_remote(place, on_progress=progress.append, on_closed=lambda: closed.append(1))
        try:
            yield Elsewhere(door.engine, door, network, remote, progress)
        finally:
            await remote.close()


def question(prefix: str = "x = ", document: str = "file:///a.py", **other: Any) -> Context:
    return Context(document=document, prefix=prefix, suffix="\n", deadline_ms=5_000, **other)
