"""`dgemma-engine` on the command line: output, exit codes, and one line for every fault."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from dgemma_engine.cli import main
from dgemma_engine.commands.status import table
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.lock_file import EngineLock, holder_pid
from dgemma_engine.protocol.status_messages import EngineState, StageTimes, Status

from tests.engine.fake_engine import command, context, location_in

ROOT = Path(__file__).parents[3]

TINY = ("--model", "tiny")


@pytest.fixture
def location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineLocation]:
    monkeypatch.setenv("DGEMMA_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(ROOT / folder) for folder in ("engine", "kernels")))
    location = location_in(tmp_path / "run")
    yield location
    if location.directory.is_dir():
        for lock in location.directory.glob("*.lock"):
            if (pid := holder_pid(lock)) is not None:
                os.kill(pid, signal.SIGKILL)


def start_fake(location: EngineLocation, mode: str = "ready", device: str = "auto") -> int:
    async def start() -> int:
        client = await EngineClient.attach_or_start(location, command=command(location.directory, mode, device))
        async with client:
            if mode == "ready":
                await client.wait_ready(20)
                await client.infill(context())
            return (await client.status()).pid

    return asyncio.run(start())


def test_status_without_engine_says_how_to_start_one(
    location: EngineLocation, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status"]) == 3
    assert capsys.readouterr().out == "no engine is running; start one with: dgemma-engine start\n"
    assert main(["status", "--json"]) == 3
    assert json.loads(capsys.readouterr().out) == {"state": "stopped"}


def test_stop_without_engine_succeeds(location: EngineLocation, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stop"]) == 0
    assert capsys.readouterr().out == "no engine is running\n"


@pytest.fixture
def running(location: EngineLocation) -> Iterator[None]:
    """Holds the locks of `coder` on any device and of `small` on the processor."""
    with ExitStack() as held:
        for model, device in (("coder", "auto"), ("small", "cpu")):
            one = replace(location, model=model, device=device)
            one.prepare()
            held.enter_context(EngineLock.acquire(one.lock) or pytest.fail())
        yield


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("action", ["stop", "status"])
@pytest.mark.parametrize(
    ("model", "says"), [("codr", "no such model; did you mean coder?"), ("nope", "no such folder or GGUF file; ")]
)
def test_engine_of_a_name_that_no_model_has_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], action: str, model: str, says: str
) -> None:
    assert main([action, "--model", model]) == 2
    assert f"{model}: {says}" in capsys.readouterr().err


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    ("options", "none"),
    [("--model tiny", "no engine of tiny"), ("--model small --device cuda", "no engine of small for the device cuda")],
)
def test_engine_that_does_not_run_is_named_with_those_that_do(
    capsys: pytest.CaptureFixture[str], options: str, none: str
) -> None:
    said = f"{none} is running; running: coder, small (--device cpu)"
    assert main(["stop", *options.split()]) == 0
    assert capsys.readouterr().out == f"{said}\n"
    assert main(["status", *options.split()]) == 3
    assert capsys.readouterr().out == f"{said}; start one with: dgemma-engine start {options}\n"


@pytest.mark.e2e
def test_status_and_stop_of_a_running_engine(location: EngineLocation, capsys: pytest.CaptureFixture[str]) -> None:
    pid = start_fake(location)
    assert main(["start"]) == 0
    assert capsys.readouterr().out == f"an engine already runs (pid {pid}): stepping on cpu\n"
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    for word in (
        "stepping",
        "/models/stepping",
        str(pid),
        "float32",
        "told not to",
        "1 (1 stable)",
        "p50 ms",
        "denoise",
    ):
        assert word in out
    assert main(["status", "--json"]) == 0
    status = Status.from_wire(json.loads(capsys.readouterr().out))
    assert (status.pid, status.compiled, status.uncompiled_reason) == (pid, False, "told not to")
    assert status.number_format == "float32"
    assert main(["stop"]) == 0
    assert capsys.readouterr().out == f"engine stopped (pid {pid})\n"
    assert holder_pid(location.lock) is None
    assert main(["status"]) == 3


@pytest.mark.e2e
def test_several_engines_are_listed_and_stopped_by_name_or_all(
    location: EngineLocation, capsys: pytest.CaptureFixture[str]
) -> None:
    pid = start_fake(location)
    on_cpu = location_in(location.directory, "cpu")
    cpu_pid = start_fake(on_cpu, device="cpu")
    assert main(["status"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["MODEL", "DEVICE", "STATE", "MEMORY", "HELD", "PID", "MORE"]
    assert [re.split("  +", row)[4:] for row in rows] == [
        [str(cpu_pid), "dgemma-engine status --model tiny --device cpu"],
        [str(pid), "dgemma-engine status --model tiny"],
    ]
    assert main(["status", "--device", "cpu"]) == 0
    assert f"pid           {cpu_pid}" in capsys.readouterr().out.splitlines()
    # The socket of one is lost: the other is listed all the same, in the last line.
    on_cpu.socket.unlink()
    assert main(["status", "--json"]) == 1
    lost, found = map(json.loads, capsys.readouterr().out.splitlines())
    assert (lost["state"], lost["model"], lost["pid"]) == ("unreachable", "tiny", cpu_pid)
    assert Status.from_wire(found).pid == pid
    assert main(["stop"]) == 2
    assert capsys.readouterr() == (
        "",
        f"dgemma-engine: 2 engines run: tiny (pid {pid}), tiny (pid {cpu_pid}); run: dgemma-engine stop --model tiny; "
        "or dgemma-engine stop --model tiny --device cpu; or dgemma-engine stop --all\n",
    )
    assert main(["stop", "--all"]) == 0
    assert capsys.readouterr().out == f"engine stopped (pid {pid})\nengine stopped (pid {cpu_pid})\n"
    assert main(["status"]) == 3


@pytest.mark.e2e
def test_stop_ends_an_engine_that_does_not_answer(location: EngineLocation, capsys: pytest.CaptureFixture[str]) -> None:
    pid = start_fake(location, "loading")
    location.socket.unlink()
    assert main(["stop"]) == 0
    assert capsys.readouterr().out == f"engine stopped (pid {pid})\n"


@pytest.mark.parametrize("place", [[], ["--foreground"]])
@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            "google/diffusiongemma-26B-A4B-it",
            "no such folder, .*; run: dgemma-engine pull google/diffusiongemma-26B-A4B-it",
        ),
        ("/no/such/folder", "/no/such/folder: no such folder or GGUF file; name a model folder"),
        ("~no-such-user/x", "~no-such-user/x: no such home folder"),
        ("file", "file: is not a folder"),
        ("empty", "empty: no config.json"),
        ("half", r"half: no \*.safetensors; download the weights"),
    ],
)
def test_start_without_a_model_is_wrong_usage_and_starts_nothing(
    location: EngineLocation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: list[str],
    model: str,
    says: str,
) -> None:
    (tmp_path / "file").touch()
    for name in ("empty", "half"):
        (tmp_path / name).mkdir()
    (tmp_path / "half" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert main(["start", *place, "--model", model]) == 2
    assert re.fullmatch(rf"dgemma-engine: .*{says}.*\n", capsys.readouterr().err)
    assert not location.directory.exists()


@pytest.fixture
def damaged(tmp_path: Path) -> str:
    """A model folder that cannot be loaded."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "diffusion_gemma"}')
    (folder / "model.safetensors").write_bytes(b"")
    return str(folder)


@pytest.mark.e2e
def test_start_waits_until_a_model_that_cannot_be_loaded_has_failed(location: EngineLocation, damaged: str) -> None:
    program = [sys.executable, "-m", "dgemma_engine"]
    started = subprocess.run([*program, "start", "--model", damaged], capture_output=True, text=True, timeout=120)
    assert (started.returncode, started.stdout) == (1, "")
    assert re.fullmatch(rf"dgemma-engine: {damaged}/tokenizer.json: .*\n", started.stderr)
    assert main(["stop", "--model", damaged]) == 0


@pytest.mark.e2e
def test_start_in_the_foreground_fails_with_the_reason(location: EngineLocation, damaged: str) -> None:
    program = [sys.executable, "-m", "dgemma_engine", "start", "--foreground", "--model", damaged]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        f"dgemma-engine: the model was not loaded: {damaged}/tokenizer.json: "
    )


def start_as(location: EngineLocation, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `start` run the fake engine in place of the real one."""
    monkeypatch.setattr("dgemma_engine.ipc.client.engine_command", lambda *_, **__: command(location.directory, mode))


@pytest.mark.e2e
def test_start_names_status_and_log_while_the_model_is_loading(
    location: EngineLocation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start_as(location, "stuck", monkeypatch)
    monkeypatch.setattr("dgemma_engine.commands.start._FIRST_STATE_S", 0.1)
    assert main(["start", *TINY]) == 0
    out = capsys.readouterr().out
    assert re.fullmatch(
        r"engine started \(pid \d+\): tiny on auto, still loading; "
        rf"check with: dgemma-engine status --model tiny \(log: {location.log}\)\n",
        out,
    )
    assert main(["stop"]) == 0


@pytest.mark.e2e
def test_start_reports_an_engine_that_dies_while_it_loads(
    location: EngineLocation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start_as(location, "dying", monkeypatch)
    assert main(["start", *TINY]) == 1
    captured = capsys.readouterr()
    assert re.fullmatch(
        rf"dgemma-engine: engine process \d+ ended while it loaded the model; see {location.log}\n", captured.err
    )


def test_refused_directory_is_reported_in_one_line(
    location: EngineLocation, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "run").symlink_to(tmp_path)
    for arguments in (["start", *TINY], ["start", "--foreground", *TINY], ["status"], ["stop"]):
        assert main(arguments) == 1
        captured = capsys.readouterr()
        assert captured.err.startswith(f"dgemma-engine: {tmp_path}/run: is a symbolic link; set DGEMMA_RUNTIME_DIR")
        assert captured.err.count("\n") == 1
        assert captured.out == ""


@pytest.mark.parametrize(
    "arguments", [["start", "--idle-minutes", "-1"], ["start", "--device", "tpu"], ["status", "--nonsense"], []]
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: dgemma-engine" in capsys.readouterr().err


def test_start_without_torch_names_the_extra(
    location: EngineLocation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["start", "--foreground", *TINY]) == 1
    assert capsys.readouterr().err == ("dgemma-engine: torch is not installed; run: pip install 'dgemma-lsp[engine]'\n")


def test_table_aligns_columns_and_leaves_out_what_is_empty() -> None:
    status = Status(
        state=EngineState.LOADING, percent=40, message="reading weights", model="tiny", model_path="/m/tiny",
        device="cpu", pid=7, version="1", uptime_s=3_725.4, memory_bytes=3 * 2**20, device_memory_bytes=0, clients=2,
        requests={"stable": 3, "fault": 1, "empty": 0}, denoising_steps=12,
        stages={"total": StageTimes(count=3, p50_ms=12.34, p95_ms=1_234.5)},
    )  # fmt: skip
    assert table(status).splitlines() == [
        "state         loading 40%",
        "message       reading weights",
        "model         tiny",
        "model path    /m/tiny",
        "device        cpu",
        "memory held   3 MiB",
        "uptime        1:02:05",
        "pid           7",
        "version       1",
        "clients       2",
        "requests      4 (3 stable, 1 fault)",
        "steps         12",
        "",
        "stage           count    p50 ms    p95 ms",
        "total               3      12.3    1234.5",
    ]


def test_table_of_an_older_engine_names_its_model_as_it_is_called_now() -> None:
    status = Status(
        state=EngineState.READY, percent=100, message="", model="embedded", model_path="/m", device="cpu", pid=7,
        version="1", uptime_s=1.0, memory_bytes=0, device_memory_bytes=0, clients=0, requests={}, denoising_steps=0,
        stages={},
    )  # fmt: skip
    assert "model         tiny" in table(status).splitlines()


def test_table_of_a_loading_engine_has_no_model_path() -> None:
    status = Status(
        state=EngineState.LOADING, percent=30, message="", model="coder", model_path="coder", device="cpu", pid=7,
        version="1", uptime_s=1.0, memory_bytes=0, device_memory_bytes=0, clients=0, requests={}, denoising_steps=0,
        stages={},
    )  # fmt: skip
    assert "model path" not in table(status)
    assert "model path    /m/coder.gguf" in table(replace(status, model_path="/m/coder.gguf"))


def test_table_names_adapters_and_why_one_is_not_used() -> None:
    status = Status(
        state=EngineState.READY, percent=100, message="", model="small", model_path="/m", device="cpu", pid=7,
        version="1", uptime_s=1.0, memory_bytes=0, device_memory_bytes=0, clients=0, requests={}, denoising_steps=0,
        stages={}, adapters={"/w/one": "", "/w/two": "it is off"},
    )  # fmt: skip
    lines = table(status).splitlines()
    assert "adapter       /w/one" in lines and "adapter       /w/two (it is off)" in lines


def test_client_and_command_line_load_no_torch() -> None:
    program = (
        "import dgemma_engine.cli, dgemma_engine.ipc.client, sys; print(sorted({'torch', 'psutil'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "engine")},
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
