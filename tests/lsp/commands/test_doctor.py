"""`dgemma-lsp doctor` in set-ups that are really broken: each fault is found, and its remedy named."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.lock_file import holder_pid
from dgemma_engine.protocol.handshake import PROTOCOL

from dgemma_lsp.commands.checks import probes
from dgemma_lsp.commands.checks.facts import EngineFacts, Facts, FolderFacts, GpuFacts, ModelFacts, OtherEngine
from dgemma_lsp.commands.checks.finding import Finding, Severity
from dgemma_lsp.commands.doctor import judge
from tests.engine import fake_engine
from tests.lsp.engine_process import STATUS_NOW, serving
from tests.lsp.programs import LSP, environ_in, obey_permissions, run, with_a_full_disk, without_account

SERVER_PACKAGES = ("pygls", "lsprotocol", "cattr", "cattrs", "attr", "attrs", "pathspec", "typing_extensions")


@dataclass(slots=True)
class Setup:
    """A set-up, in working order until a maker breaks it.

    Attributes:
        folder: for its files.
        environ: of the doctor.
        arguments: after `doctor --json`.
        options: of `run`.
        pid: of its engine.
    """

    folder: Path
    environ: dict[str, str]
    arguments: tuple[str, ...] = ("--model", "tiny")
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    pid: int = 0

    @property
    def location(self) -> EngineLocation:
        return EngineLocation.locate(self.environ)


Maker = Callable[[Setup], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def engine_extra_missing(setup: Setup) -> AsyncGenerator[None]:
    packages = setup.folder / "packages"
    packages.mkdir()
    for name in (*SERVER_PACKAGES, "dgemma_lsp", "dgemma_engine"):
        if (spec := importlib.util.find_spec(name)) is not None and spec.origin is not None:
            found = Path(spec.origin)
            found = found.parent if found.name == "__init__.py" else found
            (packages / found.name).symlink_to(found)
    setup.environ["PYTHONPATH"] = str(packages)
    # No site-packages either.
    setup.options["flags"] = ("-S",)
    yield


@asynccontextmanager
async def engine_runs(setup: Setup, device: str = "auto") -> AsyncGenerator[None]:
    location = fake_engine.location_in(setup.location.directory, device)
    command = fake_engine.command(location.directory, "ready", device)
    async with await EngineClient.attach_or_start(location, command=command) as client:
        setup.pid = (await client.wait_ready(60)).pid
    try:
        yield
    finally:
        if (pid := holder_pid(location.lock)) is not None:
            os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def socket_removed(setup: Setup) -> AsyncGenerator[None]:
    async with engine_runs(setup):
        setup.location.socket.unlink()
        yield


@asynccontextmanager
async def engine_stopped(setup: Setup) -> AsyncGenerator[None]:
    async with engine_runs(setup):
        os.kill(setup.pid, signal.SIGSTOP)
        await fake_engine.until(lambda: Path(f"/proc/{setup.pid}/stat").read_text().rpartition(")")[2][1] == "T")
        yield


@asynccontextmanager
async def engine_of_another_version(setup: Setup) -> AsyncGenerator[None]:
    async with serving(setup.location, answers={}, protocol=PROTOCOL + 1):
        yield


@asynccontextmanager
async def model_missing(setup: Setup) -> AsyncGenerator[None]:
    setup.arguments = ("--model", "google/diffusiongemma-26B-A4B-it")
    yield


@asynccontextmanager
async def directory_open_to_others(setup: Setup) -> AsyncGenerator[None]:
    (setup.location.directory / "notes.txt").touch()
    setup.location.directory.chmod(0o755)
    yield


async def ran(*command: str) -> int:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    return await process.wait()


@asynccontextmanager
async def disk_full(setup: Setup) -> AsyncGenerator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(setup.location.directory)]
    if await ran(*mount):
        setup.options["prelude"] = with_a_full_disk
        yield
        return
    try:
        yield
    finally:
        assert await ran("umount", str(setup.location.directory)) == 0


@asynccontextmanager
async def home_missing(setup: Setup) -> AsyncGenerator[None]:
    del setup.environ["HOME"]
    setup.options["prelude"] = without_account
    yield


@asynccontextmanager
async def foreign_file_for_the_socket(setup: Setup) -> AsyncGenerator[None]:
    setup.location.socket.write_text("not a socket")
    yield


@asynccontextmanager
async def driver_old(setup: Setup) -> AsyncGenerator[None]:
    torch, programs = setup.folder / "packages" / "torch", setup.folder / "bin"
    torch.mkdir(parents=True)
    (torch / "__init__.py").touch()
    (torch / "version.py").write_text("from typing import Optional\n\ncuda: Optional[str] = '13.0'\n")
    programs.mkdir()
    smi = programs / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '535.104.05, NVIDIA A10'\n")
    smi.chmod(0o755)
    setup.environ["PYTHONPATH"] = f"{torch.parent}{os.pathsep}{setup.environ['PYTHONPATH']}"
    setup.environ["PATH"] = f"{programs}{os.pathsep}{setup.environ['PATH']}"
    setup.arguments = ("--device", "cuda")
    yield


@asynccontextmanager
async def home_read_only(setup: Setup) -> AsyncGenerator[None]:
    home = setup.folder / "home"
    home.mkdir(mode=0o555)
    setup.environ["HOME"] = str(home)
    del setup.environ["XDG_STATE_HOME"]
    setup.options["before"] = obey_permissions
    yield


@asynccontextmanager
async def two_engines(setup: Setup) -> AsyncGenerator[None]:
    async with AsyncExitStack() as running:
        await running.enter_async_context(engine_runs(setup))
        await running.enter_async_context(engine_runs(setup, "cpu"))
        yield


BROKEN: list[tuple[Maker, Severity, str, str, str]] = [
    (engine_extra_missing, Severity.FAIL, "engine extra", "not installed: torch, .*psutil", r"pip install 'dgemma-lsp"),
    (socket_removed, Severity.FAIL, "engine", "engine process PID runs and does not answer: it has lost its socket",
     "dgemma-engine stop --model tiny$"),
    (engine_stopped, Severity.FAIL, "engine", "engine process PID runs and does not answer: it is stopped",
     "dgemma-engine stop --model tiny$"),
    (engine_of_another_version, Severity.FAIL, "engine", "the running engine is of a newer version",
     "restart this editor .* dgemma-engine stop$"),
    (model_missing, Severity.FAIL, "model", "google/diffusiongemma-26B-A4B-it: no such folder",
     "run: dgemma-engine pull google/diffusiongemma-26B-A4B-it"),
    (directory_open_to_others, Severity.FAIL, "socket directory", "holds other files and is open to other users",
     "set DGEMMA_RUNTIME_DIR to a directory of your own"),
    (disk_full, Severity.FAIL, "disk", "it is full", "make room, or set DGEMMA_RUNTIME_DIR"),
    (home_missing, Severity.WARN, "home", "HOME is not set and the user has no account", "set HOME to a folder"),
    (foreign_file_for_the_socket, Severity.FAIL, "socket directory", r"\.sock: is not a socket", "remove it"),
    (driver_old, Severity.FAIL, "device", "driver 535.104.05 is too old for torch built with CUDA 13.0",
     "update the driver to 580 or newer"),
    (home_read_only, Severity.WARN, "statistics", "is not writable for this user; nothing is counted",
     "make .* writable, set XDG_STATE_HOME"),
    (two_engines, Severity.WARN, "other engines", r"process PID serves stepping, \d\.\d GiB$",
     "dgemma-engine stop --model tiny --device cpu$"),
]  # fmt: skip


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("make", "verdict", "name", "detail", "remedy"), BROKEN, ids=[case[0].__name__ for case in BROKEN]
)
async def test_broken_set_up_is_found_and_its_remedy_named(
    tmp_path: Path, make: Maker, verdict: Severity, name: str, detail: str, remedy: str
) -> None:
    setup = Setup(folder=tmp_path, environ=environ_in(tmp_path))
    async with make(setup):
        code, out, err = await asyncio.to_thread(
            run, setup.environ, LSP, "doctor", "--json", *setup.arguments, **setup.options
        )
    assert err == ""
    report = json.loads(out)
    (found,) = [check for check in report["checks"] if check["name"] == name]
    assert found["verdict"] == verdict, found
    assert re.search(detail.replace("PID", str(setup.pid)), found["detail"]), found
    assert re.search(remedy.replace("PID", str(setup.pid)), found["remedy"]), found
    assert (code, report["usable"]) == ((1, False) if verdict is Severity.FAIL else (0, True))


@pytest.mark.e2e
async def test_whole_set_up_has_nothing_to_remedy(tmp_path: Path) -> None:
    setup = Setup(folder=tmp_path, environ=environ_in(tmp_path))
    async with serving(setup.location, answers={}):
        code, out, err = await asyncio.to_thread(run, setup.environ, LSP, "doctor", "--json", *setup.arguments)
    findings = {check["name"]: check for check in json.loads(out)["checks"]}
    # The fake engine's version is its own.
    assert {name for name, check in findings.items() if check["remedy"]} <= {"engine"}
    assert (code, err) == (0, "")


def facts(**changes: Any) -> Facts:
    """Facts of a set-up in which nothing is wrong."""
    whole = Facts(
        python="3", versions={"torch": "2"}, missing=(), server_version="1", device="auto", model=ModelFacts(name="m"),
        engine=EngineFacts(place="/run", log="/run/log", status=replace(STATUS_NOW, version="1")), gpu=GpuFacts(),
        memory_bytes=(8 << 30, 4 << 30), home="/home/me", runtime_disk=FolderFacts(path="/run", free_bytes=1 << 30),
        state_folder=FolderFacts(path="/home/me", free_bytes=1 << 30), stats="nothing yet",
    )  # fmt: skip
    return replace(whole, **changes)


def check(changed: Facts, *expected: tuple[str, Severity, str]) -> None:
    found = {finding.name: finding for finding in judge(changed)}
    wrong = {(name, finding.verdict) for name, finding in found.items() if finding.verdict is not Severity.OK}
    assert wrong == {(name, verdict) for name, verdict, _ in expected}
    for name, _, words in expected:
        assert re.search(words, f"{found[name].detail} -> {found[name].remedy}"), found[name]


GPU = GpuFacts(driver="535.104.05", names=("A10",), torch_cuda="13.0")
IDLE = EngineFacts(place="/run", log="/run/log")
NO_ENGINE = ("engine", Severity.WARN, "none runs now")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"server_version": "2"}, [("engine", Severity.WARN, "version 2 -> dgemma-engine stop; the next completion")]),
        ({"missing": ("torch",)}, [("engine extra", Severity.WARN, "torch -> pip install")]),
        ({"engine": IDLE}, [NO_ENGINE]),
        (
            {"engine": EngineFacts(status=replace(STATUS_NOW, version="1", uncompiled_reason="TorchScript refused"))},
            [("execution", Severity.WARN, "not compiled, so slower: TorchScript refused -> update torch")],
        ),
        ({"engine": replace(IDLE, problem="old; x", replaceable=True)}, [("engine", Severity.WARN, "old -> x")]),
        (
            {"engine": replace(IDLE, others=(OtherEngine(pid=7, stop_command="S", version="0", model="m"),))},
            [NO_ENGINE, ("other engines", Severity.WARN, r"7 serves m, .*, of version 0 \(this server: 1\) -> .*: S$")],
        ),
        ({"engine": replace(IDLE, problem="lost")}, [("engine", Severity.FAIL, "lost -> dgemma-engine stop")]),
        (
            {"model": ModelFacts(name="tiny", notice="`embedded` is called `tiny` now; write `tiny` for it")},
            [("model", Severity.WARN, r"`embedded` is called `tiny` now -> write `tiny` for it")],
        ),
        (
            {
                "engine": replace(IDLE, others=(OtherEngine(pid=7, stop_command="S", version="0", model="m"),)),
                "model": ModelFacts(name="small", problem="small is not there yet; run: pull"),
            },
            [
                ("engine", Severity.WARN, "none runs for this model -> see model"),
                ("model", Severity.FAIL, "small is not there yet -> run: pull"),
            ],
        ),
        ({"memory_bytes": (1 << 30, 0)}, [("memory", Severity.WARN, "1.0 GiB.* -> the model tiny needs 2 GiB")]),
        ({"stats_problem": "x: bad; remove it"}, [("statistics", Severity.WARN, "x: bad -> remove it")]),
        ({"engine": IDLE, "device": "cuda"}, [NO_ENGINE, ("device", Severity.FAIL, "no NVIDIA driver .* -> install")]),
        ({"engine": IDLE, "gpu": GPU}, [NO_ENGINE, ("device", Severity.WARN, "too old .* processor -> update .* 580")]),
        ({"engine": IDLE, "gpu": replace(GPU, driver="580.65.06")}, [NO_ENGINE]),
        ({"engine": IDLE, "gpu": replace(GPU, torch_cuda="12.8")}, [NO_ENGINE]),
        (
            {"engine": IDLE, "gpu": replace(GPU, torch_cuda=""), "device": "cuda:1"},
            [NO_ENGINE, ("device", Severity.FAIL, "cuda:1: the installed torch is built without CUDA")],
        ),
        ({"engine": IDLE, "gpu": GpuFacts(other="no kernels for Apple's cards yet")}, [NO_ENGINE]),
        (
            {"engine": IDLE, "device": "mps", "gpu": GpuFacts(other="no kernels for Apple's cards yet")},
            [NO_ENGINE, ("device", Severity.FAIL, "mps: no kernels for Apple's cards yet -> set the device to auto")],
        ),
        (
            {"runtime_disk": FolderFacts(path="/run", free_bytes=0)},
            [("disk", Severity.WARN, "0.0 MiB free; it is full -> make room")],
        ),
    ],
)  # fmt: skip
def test_judge(changes: dict[str, Any], expected: list[tuple[str, Severity, str]]) -> None:
    check(facts(**changes), *expected)


def test_judge_names_the_number_format_of_the_engine() -> None:
    status = replace(STATUS_NOW, version="1", number_format="bfloat16", compiled=True)
    found = {finding.name: finding for finding in judge(facts(engine=EngineFacts(status=status)))}
    assert found["execution"].detail == "bfloat16; compiled"


def test_finding_that_fails_without_a_remedy_is_refused() -> None:
    with pytest.raises(ValueError, match="model: a failed check needs a remedy"):
        Finding(name="model", verdict=Severity.FAIL, detail="missing")


@pytest.mark.parametrize(
    ("version", "machine", "expected"),
    [
        ("hip: Optional[str] = '6.4.43482-0f2d60242'\ncuda: Optional[str] = None\n", ("linux", "x86_64"), "AMD's"),
        ("hip: Optional[str] = None\ncuda: Optional[str] = '12.8'\n", ("linux", "x86_64"), ""),
        ("hip: Optional[str] = None\n", ("darwin", "arm64"), "Apple's"),
        ("hip: Optional[str] = None\n", ("darwin", "x86_64"), ""),
    ],
)
def test_gpu_of_another_maker_is_found_without_importing_torch(
    version: str, machine: tuple[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "version.py").write_text(version)
    torch_there = ModuleSpec("torch", None, is_package=True)
    torch_there.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: torch_there)
    monkeypatch.setattr(sys, "platform", machine[0])
    monkeypatch.setattr("platform.machine", lambda: machine[1])
    said = probes._other_card()  # pyright: ignore[reportPrivateUsage]
    assert (expected in said) and bool(said) is bool(expected)


@pytest.mark.parametrize("text", ["", "MemAvailable: many\n", "MemAvailable:    2048 kB\n", "\xff", None])
def test_available_memory_counts_cached_files(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {"SC_AVPHYS_PAGES": 3, "SC_PAGE_SIZE": 4_096}
    monkeypatch.setattr("os.sysconf", pages.__getitem__)
    meminfo = tmp_path / "meminfo"
    if text is not None:
        meminfo.write_text("MemFree:   1024 kB\n" + text, encoding="utf-8")
    expected = 2_048 * 1_024 if text and "2048" in text else 3 * 4_096
    assert probes.available_bytes(meminfo) == expected
