"""The daemon in separate processes: two starts, kills, signals, stale files."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from dgemma_engine.errors import EngineFault, EngineUnavailable, SocketRefused
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.lock_file import EngineLock, holder_pid
from dgemma_engine.protocol.messages import Finish
from dgemma_engine.protocol.status_messages import EngineState

from tests.engine.fake_engine import PATIENCE_S, attach, command, context, location_in, until

pytestmark = pytest.mark.e2e


class Processes:
    """Daemons started by a test, all ended with it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[subprocess.Popen[str]] = []

    def start(self, mode: str = "ready") -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(command(self._directory, mode), stdout=pipe, stderr=pipe, text=True)
        self._started.append(process)
        return process

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()
        if (pid := holder_pid(location_in(self._directory).lock)) is not None:
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path)
    yield processes
    processes.end()


async def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE_S)
    return process.returncode, out, err


async def test_two_simultaneous_starts_leave_one(processes: Processes, tmp_path: Path) -> None:
    both = [processes.start(), processes.start()]
    await until(lambda: any(process.poll() is not None for process in both))
    loser, winner = sorted(both, key=lambda process: process.poll() is None)
    assert await ended(loser) == (0, f"an engine already runs (pid {winner.pid})\n", "")
    async with await attach(location_in(tmp_path)) as client:
        assert (await client.status()).pid == winner.pid
    assert winner.poll() is None


async def test_killed_engine_fails_requests_and_its_files_are_recovered(processes: Processes, tmp_path: Path) -> None:
    location, closed = location_in(tmp_path), asyncio.Event()
    killed = processes.start()
    client = await attach(location, on_closed=closed.set)
    pending = asyncio.create_task(client.infill(context(steps=4_000)))
    while (await client.status()).denoising_steps == 0:
        await asyncio.sleep(0.01)
    killed.kill()
    with pytest.raises(EngineUnavailable, match="has ended"):
        await asyncio.wait_for(pending, PATIENCE_S)
    await asyncio.wait_for(closed.wait(), PATIENCE_S)
    await ended(killed)
    assert location.socket.exists()
    with pytest.raises(EngineUnavailable, match="no engine answers"):
        await EngineClient.attach(location)
    restarted = processes.start()
    async with await attach(location) as client:
        assert (await client.status()).pid == restarted.pid
        assert (await client.infill(context())).finish is Finish.STABLE


async def test_engine_whose_device_fails_reports_it_and_exits(processes: Processes, tmp_path: Path) -> None:
    location = location_in(tmp_path)
    failing = processes.start("failing device")
    async with await attach(location) as client:
        assert (await client.infill(context())).finish is Finish.STABLE
        with pytest.raises(EngineFault, match=r"\(CUDA error: unspecified launch failure\); the engine ends"):
            await asyncio.wait_for(client.infill(context(path="fault")), PATIENCE_S)
    assert (await ended(failing))[0] == 0
    assert not location.socket.exists()
    processes.start()
    async with await attach(location) as client:
        assert (await client.infill(context())).finish is Finish.STABLE


@pytest.mark.parametrize("mode", ["ready", "loading"])
async def test_sigterm_ends_cleanly(mode: str, processes: Processes, tmp_path: Path) -> None:
    location = location_in(tmp_path)
    process = processes.start(mode)
    async with await attach(location) as client:
        pending = asyncio.create_task(client.infill(context(steps=4_000)))
        await client.status()
        process.send_signal(signal.SIGTERM)
        assert (await asyncio.wait_for(pending, PATIENCE_S)).finish is Finish.CANCELLED
    assert (await ended(process))[0] == 0
    assert not location.socket.exists()
    assert holder_pid(location.lock) is None


async def test_socket_is_private_and_exists_before_the_model(processes: Processes, tmp_path: Path) -> None:
    location = location_in(tmp_path)
    processes.start("loading")
    async with await attach(location) as client:
        assert (await client.status()).state is EngineState.LOADING
        assert location.socket.stat().st_mode & 0o777 == 0o600
        assert location.directory.stat().st_mode & 0o777 == 0o700


def _started_in(directory: Path) -> set[int]:
    """Returns the live child processes that were started for `directory`; other children may belong to other tests."""
    return {child.pid for child in psutil.Process().children() if _runs_for(child, directory)}


def _runs_for(process: psutil.Process, directory: Path) -> bool:
    try:
        return any(str(directory) in argument for argument in process.cmdline())
    except psutil.Error:
        return False


async def test_attach_or_start_starts_one_engine_for_many_clients(processes: Processes, tmp_path: Path) -> None:
    location, start = location_in(tmp_path / "run"), command(tmp_path / "run")
    clients = await asyncio.gather(*(EngineClient.attach_or_start(location, command=start) for _ in range(3)))
    pids = {(await client.status()).pid for client in clients}
    assert len(pids) == 1
    assert location.log.stat().st_mode & 0o777 == 0o600
    assert os.getsid(next(iter(pids))) != os.getsid(0)
    # A process that is slow to start must find the running engine, not start after its end.
    await until(lambda: _started_in(tmp_path) <= pids)
    await clients[0].stop_engine()
    for client in clients:
        await client.close()
    await until(lambda: holder_pid(location.lock) is None)


async def test_attach_or_start_restarts_after_a_kill(processes: Processes, tmp_path: Path) -> None:
    location = location_in(tmp_path)
    killed = processes.start()
    await (await attach(location)).close()
    killed.kill()
    await ended(killed)
    async with await EngineClient.attach_or_start(location, command=command(tmp_path)) as client:
        assert (await client.infill(context())).finish is Finish.STABLE
        await client.stop_engine()


async def test_attach_or_start_waits_for_an_engine_that_is_ending(tmp_path: Path) -> None:
    location = location_in(tmp_path)
    ending = EngineLock.acquire(location.lock)
    assert ending is not None
    with ending:
        starting = asyncio.create_task(EngineClient.attach_or_start(location, command=command(tmp_path)))
        await until(lambda: location.log.exists() and "already runs" in location.log.read_text())
    async with await starting as client:
        assert (await client.infill(context())).finish is Finish.STABLE
        await client.stop_engine()


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (
            "import sys; print('first', flush=True); sys.exit('dgemma-engine: torch is not installed')",
            "torch is not installed",
        ),
        ("raise SystemExit(7)", "exit code 7"),
    ],
)
async def test_attach_or_start_reports_why_the_engine_ended_at_once(program: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable) as caught:
        await EngineClient.attach_or_start(location_in(tmp_path), command=[sys.executable, "-c", program])
    assert f"({reason})" in str(caught.value)
    assert "pip install 'dgemma-lsp[engine]'" in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_attach_or_start_names_a_missing_program(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="/no/such/program: cannot be run"):
        await EngineClient.attach_or_start(location_in(tmp_path), command=["/no/such/program"])


async def test_attach_or_start_times_out_on_a_silent_process(tmp_path: Path) -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(3)"]
    with pytest.raises(EngineUnavailable, match="did not answer"):
        await EngineClient.attach_or_start(location_in(tmp_path), command=sleeper, timeout_s=0.3)


async def test_attach_or_start_refuses_a_directory_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SocketRefused, match="cannot be"):
        await EngineClient.attach_or_start(location_in(tmp_path / "file" / "run"))


async def test_log_of_a_background_engine_holds_no_source_text(tmp_path: Path) -> None:
    location = location_in(tmp_path)
    async with await EngineClient.attach_or_start(location, command=command(tmp_path)) as client:
        await client.infill(context("TOP_SECRET"))
        with pytest.raises(Exception, match="failed on this request"):
            await client.infill(context("TOP_SECRET", path="fault"))
        await client.stop_engine()
    await until(lambda: holder_pid(location.lock) is None)
    log = location.log.read_text()
    assert "RuntimeError" in log
    assert "TOP_SECRET" not in log
