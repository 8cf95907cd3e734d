"""Reading an editor's pipe in the event loop: whole, in pieces, cut off; and where it must be left to pygls."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import BinaryIO

import pytest

from dgemma_lsp.pipe_reader import PipeReader, can_be_read

BODY = b'{"text": "\xc3\xa9"}'


async def test_reads_lines_and_bodies_that_come_in_pieces() -> None:
    incoming, outgoing = os.pipe()
    with os.fdopen(incoming, "rb") as pipe:
        reader = PipeReader(pipe)
        line = asyncio.create_task(reader.readline())
        os.write(outgoing, b"Content-Le")
        await asyncio.sleep(0)
        assert not line.done()
        os.write(outgoing, b"ngth: 14\r\n\r\n" + BODY[:3])
        assert await line == b"Content-Length: 14\r\n"
        assert await reader.readline() == b"\r\n"
        body = asyncio.create_task(reader.readexactly(len(BODY)))
        await asyncio.sleep(0)
        os.write(outgoing, BODY[3:])
        assert await body == BODY
        os.close(outgoing)
        assert await reader.readline() == b""


async def test_work_on_one_message_begins_before_the_next_is_read() -> None:
    incoming, outgoing = os.pipe()
    with os.fdopen(incoming, "rb") as pipe:
        os.write(outgoing, b"one\ntwo\n")
        reader = PipeReader(pipe)
        assert await reader.readline() == b"one\n"
        work = asyncio.create_task(asyncio.sleep(0))
        assert await reader.readline() == b"two\n"
        await asyncio.sleep(0)
        assert work.done()
        os.close(outgoing)


async def test_a_body_longer_than_any_header_is_read_whole() -> None:
    ours, theirs = socket.socketpair()
    with theirs, os.fdopen(ours.detach(), "rb") as pipe:
        theirs.setblocking(False)
        body = bytes(3_000_000)
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(theirs, body))
        assert await PipeReader(pipe).readexactly(len(body)) == body
        await sending


async def test_what_is_too_long_for_a_header_ends_nothing() -> None:
    ours, theirs = socket.socketpair()
    with theirs, os.fdopen(ours.detach(), "rb") as pipe:
        theirs.setblocking(False)
        stream = bytes(300_000) + b"\r\nContent-Length: 2\r\n"
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(theirs, stream))
        reader, read = PipeReader(pipe), [b""]
        while not read[-1].startswith(b"Content-Length"):
            read.append(await reader.readline())
            assert read[-1].strip(), "an empty line would end the headers"
        assert read[-1] == b"Content-Length: 2\r\n"
        await sending


async def test_an_editor_that_is_gone_in_the_middle_of_a_message_has_said_nothing() -> None:
    incoming, outgoing = os.pipe()
    with os.fdopen(incoming, "rb") as pipe:
        os.write(outgoing, b"half a mess")
        os.close(outgoing)
        assert await PipeReader(pipe).readexactly(1_000) == b""


@pytest.fixture
def elsewhere(tmp_path: Path) -> BinaryIO:
    return (tmp_path / "out").open("wb")


def test_pipes_and_sockets_are_read(elsewhere: BinaryIO) -> None:
    incoming, outgoing = os.pipe()
    ours, theirs = socket.socketpair()
    with elsewhere, os.fdopen(incoming, "rb") as pipe, os.fdopen(ours.detach(), "rb") as end, theirs:
        os.close(outgoing)
        assert can_be_read(pipe, elsewhere)
        assert can_be_read(end, elsewhere)


def test_files_and_what_is_written_to_as_well_are_left_alone(elsewhere: BinaryIO, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"")
    ours, theirs = socket.socketpair()
    with elsewhere, (tmp_path / "in").open("rb") as file, theirs, os.fdopen(ours.detach(), "r+b", buffering=0) as both:
        assert not can_be_read(file, elsewhere)
        assert not can_be_read(both, both)
