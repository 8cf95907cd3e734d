"""The end of the editor's process ends the server, whoever else holds the pipe."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dgemma_lsp.server.transport.client_process import ClientProcess
from dgemma_lsp.server.transport.editor_connection import EditorConnection
from tests.lsp.editor import fake_server
from tests.lsp.raw_client import events, raw_client, raw_client_of
from tests.lsp.waiting import until

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "record.txt"


@pytest.fixture(params=["reported by the system", "polled"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "polled":
        monkeypatch.delattr(os, "pidfd_open", raising=False)


def watch_one_that_ends(connection: EditorConnection) -> None:
    """Begins to watch a process that has ended before the event loop runs again."""
    process = subprocess.Popen(SLEEP)
    connection.watch(process.pid)
    process.kill()
    process.wait()


@pytest.mark.usefixtures("either_way")
async def test_end_of_a_process_is_noticed():
    process = await asyncio.create_subprocess_exec(*SLEEP)
    end = asyncio.create_task(ClientProcess(process.pid, poll_s=0.01).end())
    await asyncio.sleep(0.05)
    assert not end.done()
    process.kill()
    await process.wait()
    await asyncio.wait_for(end, 60)


@pytest.mark.usefixtures("either_way")
async def test_process_that_is_not_there_is_not_watched():
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await process.wait()
    for pid in (process.pid, 0, -1, 2**22 + 1, 2**31, 2**80):
        with pytest.raises(ProcessLookupError):
            ClientProcess(pid)


@pytest.mark.usefixtures("either_way")
async def test_process_that_ends_before_anybody_waits_for_its_end_is_noticed():
    process = await asyncio.create_subprocess_exec(*SLEEP)
    watched = ClientProcess(process.pid, poll_s=0.01)
    process.kill()
    await process.wait()
    await asyncio.wait_for(watched.end(), 10)


async def test_connection_ends_with_a_process_that_ends_as_soon_as_it_is_watched():
    class Nobody:
        ended = False

        def receive(self, body: bytes) -> None: ...

    connection = EditorConnection(Nobody())
    watch_one_that_ends(connection)
    await asyncio.wait_for(connection.serve(asyncio.StreamReader()), 10)


async def test_server_ends_with_the_process_that_initialize_names(record: Path):
    editor = await asyncio.create_subprocess_exec(*SLEEP)
    async with raw_client(record) as client:
        await client.initialize(processId=editor.pid)
        assert await client.lives()
        # The test still holds the pipe, as the child of an editor may.
        editor.kill()
        await editor.wait()
        assert await asyncio.wait_for(client.exit_code(), 60) == 1


async def test_server_lives_on_where_the_process_is_not_on_this_machine(record: Path):
    async with raw_client(record) as client:
        await client.initialize(processId=2**31 - 1)
        assert await client.lives()


@pytest.mark.e2e
@pytest.mark.parametrize("form", ["--clientProcessId={}", "--clientProcessId {}"])
async def test_server_ends_with_the_process_that_the_command_line_names(form: str):
    editor = await asyncio.create_subprocess_exec(*SLEEP)
    arguments = form.format(editor.pid).split()
    async with raw_client_of(sys.executable, "-m", "dgemma_lsp", "--stdio", *arguments) as client:
        assert "result" in await client.initialize()
        editor.kill()
        await editor.wait()
        assert await asyncio.wait_for(client.exit_code(), 60) == 1


@pytest.mark.e2e
async def test_editor_that_is_killed_while_its_child_holds_the_pipe_ends_the_server(record: Path):
    """The editor starts a server and a child that inherits the pipe, sends `initialize`, and is killed."""
    editing = """
import json, os, subprocess, sys, time
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
os.set_inheritable(server.stdin.fileno(), True)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
params = {"processId": os.getpid(), "capabilities": {}}
body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
server.stdin.write(f"Content-Length: {len(body)}\\r\\n\\r\\n{body}".encode())
server.stdin.flush()
print(child.pid, flush=True)
time.sleep(600)
"""
    command = [sys.executable, "-c", editing, *fake_server(record, answers=None, engine=None)]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    editor = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environ)
    assert editor.stdout is not None
    child = int(await editor.stdout.readline())
    # The server's answer comes out of the same pipe.
    await asyncio.wait_for(editor.stdout.readuntil(b"capabilities"), 60)
    editor.kill()
    try:
        await until(lambda: "ended" in events(record), timeout_s=60)
        os.kill(child, 0)
    finally:
        os.kill(child, 9)
        await editor.stdout.read()
        await editor.wait()
