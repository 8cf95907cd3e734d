"""Serves one editor on standard input and output or on a TCP port, from the first message to the last answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from dgemma_lsp.server.transport.editor_connection import EditorConnection, first_to_speak
from dgemma_lsp.server.transport.stdio import StdoutWriter, open_input

if TYPE_CHECKING:
    from dgemma_lsp.server.app import DgemmaServer

# Longest wait for the last messages of a session that ends.
_CLOSE_TIMEOUT_S = 2.0


async def serve_io(server: DgemmaServer, stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Serves the editor on two files until it sends `exit`, its streams close, or its process ends."""
    connection = EditorConnection(server.messages)
    server.messages.set_writer(StdoutWriter(stdout, connection.hang_up))
    server.watch_client = connection.watch
    _watch(server, connection)
    await connection.serve(await open_input(stdin, stdout))
    await _close(server)


async def serve_tcp(server: DgemmaServer, host: str, port: int) -> None:
    """Serves the first client of a port that sends a byte, and refuses all others.

    The process that `initialize` names is not watched: it may be one of another machine.

    Raises:
        OSError: the server cannot listen on the address.
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


def _watch(server: DgemmaServer, connection: EditorConnection) -> None:
    if server.client_pid is not None:
        connection.watch(server.client_pid)


async def _close(server: DgemmaServer) -> None:
    await server.messages.end()
    if not server.shut_down:
        with suppress(TimeoutError):
            await asyncio.wait_for(server.session.close(), _CLOSE_TIMEOUT_S)
