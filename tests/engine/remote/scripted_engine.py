"""A server that presents itself as an engine and answers requests with the bytes that a test chose."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from dgemma_engine.protocol.handshake import PROTOCOL
from dgemma_engine.protocol.messages import Finish, Infill


def http(status: str, kind: str, body: str, *more: str) -> bytes:
    """Returns an HTTP response that leaves the connection open."""
    fields = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *more]
    return ("\r\n".join(fields) + "\r\n\r\n" + body).encode()


def about(**other: Any) -> bytes:
    """Returns the response to a request for the engine's state."""
    values: dict[str, Any] = {"protocol": PROTOCOL, "state": "ready", "percent": 100, "status": None}
    return http("200 OK", "application/json", json.dumps(values | other))


def answer(text: str = "alpha", **other: Any) -> bytes:
    """Returns the response to a completion request."""
    values: dict[str, Any] = {"answer": Infill(text=text, finish=Finish.STABLE).to_wire(), "elapsed_ms": 1.0}
    return http("200 OK", "application/json", json.dumps(values | other))


@dataclass
class ScriptedEngine:
    """The server's responses.

    Attributes:
        about: response to a request for the engine's state.
        reply: response to a completion request; empty for no response, None to close the connection.
        port: the TCP port of the server.
        num_asked: number of completion requests so far.
    """

    about: bytes = field(default_factory=about)
    reply: bytes | None = field(default_factory=answer)
    port: int = 0
    num_asked: int = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one connection."""
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if length := re.search(rb"(?i)content-length: (\d+)", head):
                    await reader.readexactly(int(length[1]))
                reply = self.about
                if head.startswith(b"POST"):
                    self.num_asked += 1
                    reply = self.reply
                if reply is None:
                    break
                writer.write(reply)
                await writer.drain()
                if b"Connection: close" in reply:
                    break
        writer.transport.abort()


@asynccontextmanager
async def scripted_engine(*, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedEngine]:
    """Yields a server that listens on a free port."""
    engine = ScriptedEngine()
    tasks = set[asyncio.Task[None]]()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(engine.accept(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    engine.port = server.sockets[0].getsockname()[1]
    try:
        yield engine
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
