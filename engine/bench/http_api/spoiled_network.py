"""A proxy between a client and a port on this machine that delays what it carries, cuts it, or ends connections."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

_TIMER_S = 0.0015

Transform = Callable[[bytes], bytes | None]
"""Returns the part of a piece that is passed on; None ends the connection at once."""


@dataclass
class Network:
    """Connections to a port.

    Attributes:
        target: the port.
        port: where the proxy listens.
        delay_s: seconds that each piece takes, in each direction.
        late_s: returns seconds that a piece takes in addition.
        to_engine: changes a piece on the way there.
        from_engine: changes a piece on the way back.
        cuts_short: whether a piece that was shortened is the last of its connection.
        num_connections: made so far.
        num_sent: bytes that went to the port.
        sent: the pieces that went there, where they are kept.
    """

    target: int
    port: int = 0
    delay_s: float = 0.0
    late_s: Callable[[], float] = lambda: 0.0
    to_engine: Transform = lambda data: data
    from_engine: Transform = lambda data: data
    cuts_short: bool = False
    num_connections: int = 0
    num_sent: int = 0
    sent: list[bytes] | None = None
    _open: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries one connection."""
        self.num_connections += 1
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        ways = [
            asyncio.create_task(self._carry(reader, there_writer, self._to_engine)),
            asyncio.create_task(self._carry(there_reader, writer, lambda data: self.from_engine(data))),
        ]
        self._open.update(ways)
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            self._open.difference_update(ways)
            for one in (writer, there_writer):
                one.transport.abort()

    def cut(self) -> None:
        """Ends every connection that is open."""
        for task in list(self._open):
            task.cancel()

    def _to_engine(self, data: bytes) -> bytes | None:
        self.num_sent += len(data)
        if self.sent is not None:
            self.sent.append(data)
        return self.to_engine(data)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, transform: Transform) -> None:
        """Passes pieces on in order until one ends the connection; delays of pieces overlap."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def read() -> None:
            data = b"-"
            with suppress(OSError):
                while data := await reader.read(2**16):
                    pieces.put_nowait((loop.time() + self.delay_s + self.late_s(), data))
            pieces.put_nowait((loop.time() + self.delay_s, b""))

        reading = asyncio.create_task(read())
        try:
            while True:
                due_s, data = await pieces.get()
                await _wait_until(due_s, loop)
                changed = transform(data) if data else None
                if changed is None:
                    return
                writer.write(changed)
                if self.cuts_short and len(changed) < len(data):
                    with suppress(OSError):
                        await writer.drain()
                    return
        finally:
            reading.cancel()


async def _wait_until(due_s: float, loop: asyncio.AbstractEventLoop) -> None:
    """Waits for a time of the loop's clock; its timers are late by up to a millisecond, which is no part of a delay."""
    if (left_s := due_s - _TIMER_S - loop.time()) > 0:
        await asyncio.sleep(left_s)
    while loop.time() < due_s:
        await asyncio.sleep(0)


@asynccontextmanager
async def network_to(port: int, *, delay_s: float = 0.0) -> AsyncGenerator[Network]:
    """Gives a network whose other end is a port of this machine.

    Args:
        port: the port.
        delay_s: seconds that each piece takes, in each direction.
    """
    network = Network(target=port, delay_s=delay_s)
    server = await asyncio.start_server(network.accept, "127.0.0.1", 0)
    network.port = server.sockets[0].getsockname()[1]
    try:
        yield network
    finally:
        server.close()
        network.cut()


@asynccontextmanager
async def slow_network_to(port: int, *, delay_s: float) -> AsyncGenerator[int]:
    """Gives the port of a network in a process of its own, as a network takes no time of the client's processor.

    Args:
        port: the other end.
        delay_s: seconds that each piece takes, in each direction.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(port, delay_s, theirs), daemon=True)
    process.start()
    try:
        yield await asyncio.to_thread(ours.recv)
    finally:
        process.terminate()
        process.join()


def _serve(port: int, delay_s: float, pipe: Any) -> None:
    async def serve() -> None:
        async with network_to(port, delay_s=delay_s) as network:
            pipe.send(network.port)
            await asyncio.Event().wait()

    asyncio.run(serve())
