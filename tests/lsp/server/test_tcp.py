"""A server on a TCP port: the first client that sends something is served, every other is refused."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dgemma_lsp.server.app import DgemmaServer, build_server
from dgemma_lsp.server.serving import serve_tcp
from tests.lsp.fake_engine import FakeConnector
from tests.lsp.raw_client import RawClient, framed, raw_client_of


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@asynccontextmanager
async def serving(
    home: Path, *, client_pid: int | None = None
) -> AsyncGenerator[tuple[int, DgemmaServer, asyncio.Task[None]]]:
    connector, port = FakeConnector(answers={"": "1"}), free_port()
    server = build_server(lambda _: connector.connect, environ={"HOME": str(home)}, client_pid=client_pid)
    task = asyncio.create_task(serve_tcp(server, "127.0.0.1", port))
    try:
        yield port, server, task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(60):
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def client_of(port: int) -> AsyncGenerator[RawClient]:
    reader, writer = await connect(port)
    client = RawClient(reader, writer.write)
    reading = asyncio.create_task(client.read())
    yield client
    writer.close()
    await asyncio.wait_for(reading, 10)


async def test_second_client_is_refused_and_the_first_one_answered(tmp_path: Path):
    async with serving(tmp_path) as (port, server, task):
        early_reader, early_writer = await connect(port)
        async with client_of(port) as client:
            await client.initialize()
            assert await asyncio.wait_for(early_reader.read(), 10) == b"", "connected before, and sent nothing"
            early_writer.close()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            assert await client.lives()
            assert (await client.request("shutdown"))["result"] is None
            client.send({"method": "exit"})
            await asyncio.wait_for(task, 10)
            assert server.shut_down


async def test_one_of_two_clients_that_send_at_once_is_served(tmp_path: Path):
    async with serving(tmp_path) as (port, _, _):
        initialize = framed(b'{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"capabilities": {}}}')
        streams = [await connect(port), await connect(port)]
        for _, writer in streams:
            writer.write(initialize)
        told = await asyncio.gather(*(asyncio.wait_for(reader.read(15), 10) for reader, _ in streams))
        assert sorted(told) == [b"", b"Content-Length:"]
        for _, writer in streams:
            writer.close()


async def test_connection_that_sends_nothing_is_no_editor(tmp_path: Path):
    """A script that waits for the port connects and leaves."""
    async with serving(tmp_path) as (port, _, task):
        for _ in range(3):
            _, writer = await connect(port)
            writer.close()
            await writer.wait_closed()
        async with client_of(port) as client:
            await client.initialize()
            assert await client.lives()
        await asyncio.wait_for(task, 10)


async def test_server_without_an_editor_ends_with_the_process_that_the_command_line_names(tmp_path: Path):
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(600)")
    async with serving(tmp_path, client_pid=process.pid) as (port, _, task):
        _, writer = await connect(port)
        process.kill()
        await process.wait()
        await asyncio.wait_for(task, 10)
        writer.close()


@pytest.mark.e2e
async def test_process_named_by_initialize_may_be_of_another_machine_but_that_of_the_command_line_is_watched():
    editor = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(600)")
    port = free_port()
    arguments = ["--tcp", f"127.0.0.1:{port}", "--clientProcessId", str(editor.pid)]
    async with raw_client_of(sys.executable, "-m", "dgemma_lsp", *arguments) as process, client_of(port) as client:
        remote = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(600)")
        await client.initialize(processId=remote.pid)
        remote.kill()
        await remote.wait()
        assert "result" in await client.request("dgemma/tally")
        editor.kill()
        await editor.wait()
        assert await asyncio.wait_for(process.exit_code(), 60) == 1
