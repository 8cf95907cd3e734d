"""One editor's connection: bytes to message bodies, until the editor sends `exit`, disconnects or is killed.

Knows no protocol types: `Receiver` handles the bodies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from dgemma_lsp.server.transport.client_process import ClientProcess
from dgemma_lsp.server.transport.framing import Framing

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 2**16

T = TypeVar("T")
Speaker = tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]


class Receiver(Protocol):
    """Handles messages."""

    ended: bool

    def receive(self, body: bytes) -> None:
        """Handles one message; sets `ended` after the last."""
        ...


class EditorConnection:
    """The connection of one editor.

    Args:
        receiver: handles the messages.
    """

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._gone = asyncio.Event()
        self._watching: dict[int, asyncio.Task[None]] = {}

    def watch(self, pid: int) -> None:
        """Ends the connection when a process ends; one that is not there is not watched."""
        if pid in self._watching:
            return
        try:
            # Opened here and not in the task: the process may have ended when the task begins.
            process = ClientProcess(pid)
        except ProcessLookupError:
            _log.info("no process %d here to watch", pid)
            return
        self._watching[pid] = asyncio.create_task(self._watch(process))

    def hang_up(self) -> None:
        """Ends the connection."""
        self._gone.set()

    async def serve(self, stream: asyncio.StreamReader, *, begun: bytes = b"") -> None:
        """Handles messages until the connection ends.

        Args:
            stream: what the editor sends.
            begun: bytes of it that were read already.
        """
        try:
            await self.unless_gone(self._read(stream, begun))
        finally:
            for task in self._watching.values():
                task.cancel()

    async def unless_gone(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Returns the result of some work; None where the connection ends first, which cancels the work."""
        working, gone = asyncio.create_task(work), asyncio.create_task(self._gone.wait())
        try:
            await asyncio.wait([working, gone], return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            gone.cancel()
            if not working.done():
                working.cancel()
                await asyncio.wait([working])

    async def _read(self, stream: asyncio.StreamReader, data: bytes) -> None:
        framing = Framing()
        with suppress(ConnectionError):
            while data or (data := await stream.read(_CHUNK_BYTES)):
                for body in framing.feed(data):
                    self._receiver.receive(body)
                    if self._receiver.ended:
                        return
                    # Work on one message begins before the next is read.
                    await asyncio.sleep(0)
                data = b""

    async def _watch(self, process: ClientProcess) -> None:
        await process.end()
        _log.warning("the editor's process has ended")
        self.hang_up()


async def first_to_speak(host: str, port: int) -> Speaker:
    """Listens until a client has sent something; returns those bytes and the client's streams.

    All other clients are disconnected then: a server has one editor.

    Raises:
        OSError: the server cannot listen on the address.
    """
    speaking: asyncio.Future[Speaker] = asyncio.get_running_loop().create_future()
    connected: set[asyncio.StreamWriter] = set()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.add(writer)
        data = b""
        with suppress(ConnectionError):
            data = await reader.read(_CHUNK_BYTES)
        connected.discard(writer)
        if data and not speaking.done():
            speaking.set_result((data, reader, writer))
        else:
            writer.close()

    server = await asyncio.start_server(hear, host, port)
    try:
        return await speaking
    finally:
        server.close()
        for writer in connected:
            writer.close()
