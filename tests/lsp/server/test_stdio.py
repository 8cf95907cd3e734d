"""Reading an editor's input in the event loop, or in a thread where that is unsafe; writing until the editor ends."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import BinaryIO

import pytest

from dgemma_lsp.server.transport.stdio import StdoutWriter, can_be_read, open_input


@pytest.fixture
def elsewhere(tmp_path: Path) -> BinaryIO:
    return (tmp_path / "out").open("wb")


async def read_all(incoming: BinaryIO, outgoing: BinaryIO) -> bytes:
    return await asyncio.wait_for((await open_input(incoming, outgoing)).read(), 10)


async def test_pipe_is_read_in_pieces_as_they_come(elsewhere: BinaryIO) -> None:
    incoming, outgoing = os.pipe()
    with elsewhere, os.fdopen(incoming, "rb") as pipe:
        stream = await open_input(pipe, elsewhere)
        piece = asyncio.create_task(stream.read(100))
        await asyncio.sleep(0)
        assert not piece.done()
        os.write(outgoing, b"one")
        assert await piece == b"one"
        os.write(outgoing, b"two")
        os.close(outgoing)
        assert await stream.read() == b"two"


async def test_body_longer_than_a_pipe_is_read_whole(elsewhere: BinaryIO) -> None:
    ours, theirs = socket.socketpair()
    with elsewhere, os.fdopen(ours.detach(), "rb") as pipe:
        theirs.setblocking(False)
        body = bytes(3_000_000)

        async def send() -> None:
            await asyncio.get_running_loop().sock_sendall(theirs, body)
            theirs.close()

        sending = asyncio.create_task(send())
        assert await read_all(pipe, elsewhere) == body
        await sending


async def test_file_and_socket_for_both_directions_are_read_in_a_thread(elsewhere: BinaryIO, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 200_000)
    with elsewhere, (tmp_path / "in").open("rb") as file:
        assert await read_all(file, elsewhere) == b"x" * 200_000
    ours, theirs = socket.socketpair()
    with theirs, os.fdopen(ours.detach(), "r+b", buffering=0) as both:
        theirs.sendall(b"one")
        theirs.shutdown(socket.SHUT_WR)
        assert await read_all(both, both) == b"one"
        assert os.get_blocking(both.fileno()), "a write still blocks"


async def test_thread_whose_loop_is_closed_blocks_nothing(elsewhere: BinaryIO) -> None:
    ours, theirs = socket.socketpair()
    with theirs, elsewhere, os.fdopen(ours.detach(), "r+b", buffering=0) as both:

        async def use() -> None:
            await open_input(both, both)

        await asyncio.to_thread(asyncio.run, use())
        theirs.sendall(b"late")


def test_pipes_and_sockets_are_read(elsewhere: BinaryIO) -> None:
    incoming, outgoing = os.pipe()
    ours, theirs = socket.socketpair()
    with elsewhere, os.fdopen(incoming, "rb") as pipe, os.fdopen(ours.detach(), "rb") as end, theirs:
        os.close(outgoing)
        assert can_be_read(pipe, elsewhere)
        assert can_be_read(end, elsewhere)


def test_files_and_sockets_for_both_directions_cannot_be_read(elsewhere: BinaryIO, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"")
    ours, theirs = socket.socketpair()
    with elsewhere, (tmp_path / "in").open("rb") as file, theirs, os.fdopen(ours.detach(), "r+b", buffering=0) as both:
        assert not can_be_read(file, elsewhere)
        assert not can_be_read(both, both)


def test_writing_to_an_editor_that_is_gone_is_reported_once_and_raises_nothing() -> None:
    incoming, outgoing = os.pipe()
    gone: list[str] = []
    with os.fdopen(outgoing, "wb") as pipe:
        writer = StdoutWriter(pipe, lambda: gone.append("gone"))
        writer.write(b"one")
        assert os.read(incoming, 10) == b"one"
        os.close(incoming)
        for _ in range(3):
            writer.write(b"two")
    assert gone == ["gone"]
