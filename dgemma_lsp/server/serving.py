"""Serves one editor on standard input and output or on a TCP port, from the first message to the last answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, Protocol

from dgemma_lsp.server.json_rpc import AnsweringProtocol
from dgemma_lsp.server.transport.editor_connection import EditorConnection, first_to_speak
from dgemma_lsp.server.transport.stdio import StdoutWriter, open_input
from dgemma_lsp.session import Session

# Nobody waits for what a session that ends still has to write.
_CLOSE_TIMEOUT_S = 2.0


class Served(Protocol):
    """The server of one editor.

    Attributes:
        session: is closed at the end.
        shut_down: whether the editor has closed the session.
        client_pid: the editor's process as the command line names it.
        watch_client: called with the editor's process as `initialize` names it.
    """

    session: Session
    shut_down: bool
    client_pid: int | None
    watch_client: Callable[[int], None]

    @property
    def messages(self) -> AnsweringProtocol:
        """Handles the messages."""
        ...


async def serve_io(server: Served, stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Serves the editor at the other end of two files until it says goodbye, is gone, or its process ends."""
    connection = EditorConnection(server.messages)
    server.messages.set_writer(StdoutWriter(stdout, connection.hang_up))
    server.watch_client = connection.watch
    _watch(server, connection)
    await connection.serve(await open_input(stdin, stdout))
    await _close(server)


async def serve_tcp(server: Served, host: str, port: int) -> None:
    """Serves the first client of a port that says something, and refuses all others.

    The process that `initialize` names is not watched: it may be one of another machine.

    Raises:
        OSError: the address cannot be listened on.
    """
    connection = EditorConnection(server.messages)
    _watch(server, connection)
    if (speaker := await connection.unless_gone(first_to_speak(host, port))) is None:
        return
    begun, reader, writer = speaker
    server.messages.set_writer(writer)
    await connection.serve(reader, begun=begun)
    await _close(server)
    with suppress(ConnectionError):
        await writer.drain()
        writer.close()
        await writer.wait_closed()


def _watch(server: Served, connection: EditorConnection) -> None:
    if server.client_pid is not None:
        connection.watch(server.client_pid)


async def _close(server: Served) -> None:
    await server.messages.end()
    if not server.shut_down:
        with suppress(TimeoutError):
            await asyncio.wait_for(server.session.close(), _CLOSE_TIMEOUT_S)
