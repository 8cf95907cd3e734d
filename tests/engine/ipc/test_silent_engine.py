"""Engines that run and cannot be reached: detected at once, replaced if unused, else reported with a remedy."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dgemma_engine.cli import main
from dgemma_engine.errors import EngineSilent
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.lock_file import EngineLock, holder_pid
from dgemma_engine.ipc.silent_engine import Silence, end_process, find_silent

from tests.engine.fake_engine import command, location_in, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not Path("/proc/net/unix").exists(), reason="no /proc; not checked: unreachable engines"),
]


def stop(location: EngineLocation, pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def take_socket(location: EngineLocation, pid: int) -> None:
    location.socket.unlink()


DAMAGES = [(stop, Silence.STOPPED), (take_socket, Silence.NO_SOCKET)]


@pytest.fixture
def location(tmp_path: Path) -> Iterator[EngineLocation]:
    location = location_in(tmp_path / "run")
    yield location
    if (pid := holder_pid(location.lock)) is not None:
        os.kill(pid, signal.SIGKILL)


async def start(location: EngineLocation) -> tuple[EngineClient, int]:
    client = await EngineClient.attach_or_start(location, command=command(location.directory))
    return client, (await client.status()).pid


async def stopped(pid: int) -> None:
    await until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TtZ")


async def reach(damage: Callable[[EngineLocation, int], None], location: EngineLocation, pid: int) -> None:
    damage(location, pid)
    if damage is stop:
        await stopped(pid)


@pytest.mark.parametrize(("damage", "silence"), DAMAGES)
async def test_unused_unreachable_engine_is_replaced(
    location: EngineLocation, damage: Callable[[EngineLocation, int], None], silence: Silence
) -> None:
    client, pid = await start(location)
    assert find_silent(location) is None
    await reach(damage, location, pid)
    silent = find_silent(location)
    assert silent is not None
    assert (silent.pid, silent.silence, silent.num_clients) == (pid, silence, 1)
    await client.close()
    again, new_pid = await start(location)
    async with again:
        assert new_pid != pid
        assert holder_pid(location.lock) == new_pid


@pytest.mark.parametrize(("damage", "silence"), DAMAGES)
async def test_unreachable_engine_that_another_window_uses_is_reported_and_kept(
    location: EngineLocation, damage: Callable[[EngineLocation, int], None], silence: Silence
) -> None:
    client, pid = await start(location)
    await reach(damage, location, pid)
    for attempt in (EngineClient.attach, EngineClient.attach_any, EngineClient.attach_or_start):
        said = f"engine process {pid} runs and does not answer: it {silence} .*; end it: dgemma-e"
        with pytest.raises(EngineSilent, match=said):
            await attempt(location)
    assert holder_pid(location.lock) == pid
    os.kill(pid, signal.SIGCONT)
    assert (await client.status()).clients == 1
    await client.close()


@pytest.mark.parametrize(("damage", "silence"), DAMAGES)
async def test_status_names_and_stop_ends_an_unreachable_engine(
    location: EngineLocation,
    damage: Callable[[EngineLocation, int], None],
    silence: Silence,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DGEMMA_RUNTIME_DIR", str(location.directory))
    client, pid = await start(location)
    await reach(damage, location, pid)
    assert await asyncio.to_thread(main, ["status"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"dgemma-engine: engine process {pid} runs and does not answer: it {silence}")
    assert await asyncio.to_thread(main, ["stop"]) == 0
    assert capsys.readouterr().out == f"engine stopped (pid {pid})\n"
    assert holder_pid(location.lock) is None
    await client.close()


async def test_connections_waiting_for_a_stopped_engine_are_not_clients(location: EngineLocation) -> None:
    client, pid = await start(location)
    await client.close()
    await reach(stop, location, pid)
    _, writer = await asyncio.open_unix_connection(location.socket)
    silent = find_silent(location)
    assert silent is not None
    assert silent.num_clients == 0
    writer.close()
    await writer.wait_closed()


async def test_engine_that_ignores_the_stop_request_is_killed(location: EngineLocation) -> None:
    program = (
        "import signal,sys,time; from pathlib import Path; from dgemma_engine.ipc.lock_file import EngineLock\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "lock = EngineLock.acquire(Path(sys.argv[1])); print(flush=True); time.sleep(600)"
    )
    location.prepare()
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(location.lock), stdout=subprocess.PIPE, env=environ
    )
    assert holder.stdout is not None
    await holder.stdout.readline()
    assert await end_process(location, holder.pid)
    assert await holder.wait() == -signal.SIGKILL


def test_process_that_does_not_hold_the_lock_is_never_taken_for_the_engine(location: EngineLocation) -> None:
    """The process id in the lock may come from another container."""
    location.prepare()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        os.kill(other.pid, signal.SIGSTOP)
        lock = EngineLock.acquire(location.lock)
        assert lock is not None
        with lock:
            location.lock.write_text(f"{other.pid}\n")
            assert holder_pid(location.lock) == other.pid
            assert find_silent(location) is None
        other.kill()
