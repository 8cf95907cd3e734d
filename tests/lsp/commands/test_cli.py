"""The command line in processes of its own, over the real socket, with an engine that runs without a model."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import pytest
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.model_store.catalogue import CATALOGUE, DEFAULT_MODEL
from dgemma_engine.protocol.handshake import PROTOCOL

from tests.lsp.engine_process import serving

pytestmark = pytest.mark.e2e

TAKE_A_MODEL = {"complete", "demo", "doctor", "trace"}
SOURCE = "def area(r):\n    return |\n\n\ndef next():\n    pass\n"


@pytest.fixture
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("rt")
    directory.chmod(0o700)
    path = os.pathsep.join(sys.path)
    return {"PATH": os.environ["PATH"], "PYTHONPATH": path, "DGEMMA_RUNTIME_DIR": str(directory), "HOME": "/nowhere"}


async def run(environ: dict[str, str], *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Runs a command, with `--model tiny` where the command takes a model and the test names none."""
    if TAKE_A_MODEL & set(arguments[:1]) and "--model" not in arguments:
        arguments += ("--model", "tiny")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "dgemma_lsp",
        *arguments,
        env=environ,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def target(tmp_path: Path) -> str:
    path = tmp_path / "a.py"
    path.write_text(SOURCE.replace("|", ""), encoding="utf-8")
    return f"{path}:2:12"


async def test_complete_prints_the_completion_between_its_surroundings(environ: dict[str, str], target: str):
    async with serving(EngineLocation.locate(environ), answers={"return ": "3.14 * r ** 2\nx"}):
        code, out, err = await run(environ, "complete", target)
    assert (code, err) == (0, "")
    assert out.startswith("def area(r):\n    return >>3.14 * r ** 2<<\n\n\ndef next():\n")
    assert re.search(r"\n\[shown: score 0\.50, ended by the model, 4 passes of the model, \d+ ms\]\n$", out)


async def test_complete_json_is_one_object(environ: dict[str, str], target: str):
    async with serving(EngineLocation.locate(environ), answers={"return ": "3"}):
        code, out, _ = await run(environ, "complete", target, "--json", "--deadline-ms", "500", "--seed", "7")
    assert code == 0
    assert json.loads(out) == {
        "text": "3",
        "replaces": 0,
        "unlikely": False,
        "finish": "stable",
        "score": 0.5,
        "steps": 3,
        "model": "fake",
        "device": "cpu",
        "timings_ms": {"total": 1.0},
        "adapter": None,
    }


async def test_complete_passes_deadline_and_seed_on(environ: dict[str, str], target: str):
    async with serving(EngineLocation.locate(environ), answers={}) as engine:
        code, out, _ = await run(environ, "complete", target, "--deadline-ms", "500", "--seed", "7")
    assert code == 0
    assert "[nothing to show: no candidate, 4 passes of the model, " in out
    (context,) = engine.contexts
    assert (context.deadline_ms, context.seed, context.path) == (500, 7, "a.py")


async def test_complete_prints_a_fault_in_one_line(environ: dict[str, str], tmp_path: Path):
    path = tmp_path / "a.py"
    path.write_text("FAULT", encoding="utf-8")
    async with serving(EngineLocation.locate(environ), answers={}):
        code, out, err = await run(environ, "complete", f"{path}:1:6")
    assert (code, out, err) == (1, "", "dgemma-lsp: out of memory; use a smaller model\n")


async def test_complete_prints_an_unlikely_answer_except_while_typing(environ: dict[str, str], tmp_path: Path):
    path = tmp_path / "a.py"
    path.write_text("UNLIKELY = ", encoding="utf-8")
    typing = "[nothing to show: the best candidate is too unlikely, score 0.50, ended by the model, 4 passes of the "
    async with serving(EngineLocation.locate(environ), answers={"UNLIKELY = ": "3"}):
        _, by_hand, _ = await run(environ, "complete", f"{path}:1:12")
        _, json_by_hand, _ = await run(environ, "complete", f"{path}:1:12", "--json")
        _, while_typing, _ = await run(environ, "complete", f"{path}:1:12", "--while-typing")
        _, json_while_typing, _ = await run(environ, "complete", f"{path}:1:12", "--while-typing", "--json")
    assert by_hand.startswith("UNLIKELY = >>3<<\n[unlikely: score 0.50, ended by the model, ")
    assert while_typing.startswith(f"UNLIKELY = >><<\n{typing}")
    for printed, text in ((json_by_hand, "3"), (json_while_typing, "")):
        answer = json.loads(printed)
        assert (answer["text"], answer["unlikely"], answer["score"]) == (text, True, 0.5)


async def test_complete_json_counts_the_characters_that_the_answer_replaces(environ: dict[str, str], tmp_path: Path):
    path = tmp_path / "a.py"
    path.write_text("print(area(\N{GRINNING FACE}))\n", encoding="utf-8")
    async with serving(EngineLocation.locate(environ), answers={"area(": "3\N{GRINNING FACE}))"}):
        code, out, _ = await run(environ, "complete", f"{path}:1:12", "--json")
    assert code == 0
    answer = json.loads(out)
    assert (answer["text"], answer["replaces"]) == ("3\N{GRINNING FACE}))", 3)


@pytest.mark.parametrize("command", ["complete", "trace", "demo"])
async def test_request_that_the_end_of_the_engine_cancels_is_a_fault(
    environ: dict[str, str], tmp_path: Path, command: str
):
    path = tmp_path / "a.py"
    path.write_text("x = ", encoding="utf-8")
    place = (f"{path}:1:5",)
    arguments = {"complete": place, "trace": (*place, "--html", str(tmp_path / "o.html")), "demo": ()}[command]
    async with serving(EngineLocation.locate(environ), answers={}, is_stopped=True):
        code, out, err = await run(environ, command, *arguments)
    said = "dgemma-lsp: the engine was stopped before it had answered; run the command again\n"
    assert (code, out, err) == (1, "", said)
    assert names(tmp_path) == ["a.py"]


@pytest.mark.parametrize("argument", ["none.py:1:1", "a.py", "/:1:1"])
async def test_complete_refuses_a_wrong_target_in_one_line(environ: dict[str, str], argument: str):
    code, out, err = await run(environ, "complete", argument)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"dgemma-lsp: [^\n]+\n", err)


async def test_complete_without_a_model_is_wrong_usage(environ: dict[str, str], target: str):
    code, out, err = await run(environ, "complete", target, "--model", "/no/such/model")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"dgemma-lsp: [^\n]+\n", err)
    assert "/no/such/model" in err


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_trace_writes_one_page(environ: dict[str, str], target: str, tmp_path: Path):
    out = tmp_path / "out.html"
    async with serving(EngineLocation.locate(environ), answers={"return ": "3.14 * r ** 2"}) as engine:
        code, printed, err = await run(environ, "trace", target, "--html", str(out), "--seed", "7")
    assert (code, err) == (0, "")
    assert printed == f"{out}: open it in a browser; it holds lines of {target.rpartition(':')[0].rpartition(':')[0]}\n"
    page = out.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "<title>a.py:2:12</title>" in page
    assert '"text":"3.14 * r ** 2"' in page
    assert [context.seed for context in engine.contexts] == [7]
    assert names(tmp_path) == ["a.py", "out.html"]


@pytest.mark.parametrize(
    ("argument", "out", "message"),
    [
        ("none.py:1:1", "o.html", "none.py: no such file"),
        ("a.py", "o.html", "'a.py' is not FILE:LINE:COLUMN"),
        ("a.py:9:1", "o.html", "no line 9; it has lines 1 to 7"),
        ("a.py:2:99", "o.html", "no column 99 in line 2"),
        (".env:1:1", "o.html", ".env: .* private"),
        ("a.py:2:12", "none/o.html", "cannot write .*/none/o.html: No such file or directory; name a file"),
        ("a.py:2:12", ".", r"cannot write .*: Is a directory; name a file"),
        ("a.py:2:12", "o.html", "no engine|/no/such/model"),
    ],
)
async def test_trace_prints_what_is_wrong_in_one_line_and_writes_nothing(
    environ: dict[str, str], tmp_path: Path, argument: str, out: str, message: str
):
    (tmp_path / "a.py").write_text(SOURCE.replace("|", ""))
    (tmp_path / ".env").write_text("KEY=1")
    at = argument.replace("none.py", f"{tmp_path}/none.py").replace("a.py:", f"{tmp_path}/a.py:")
    at = at.replace(".env", f"{tmp_path}/.env")
    place = str(tmp_path / out) if out != "." else str(tmp_path)
    code, printed, err = await run(environ, "trace", at, "--html", place, "--model", "/no/such/model")
    assert (code, printed) == (2, "")
    assert re.fullmatch(r"dgemma-lsp: [^\n]+\n", err)
    assert re.search(message.replace(r"\.:", f"{tmp_path}:"), err)
    assert names(tmp_path) == [".env", "a.py"]


@pytest.mark.parametrize("umask", [0o777, 0o000])
async def test_trace_writes_a_page_for_its_owner_whatever_the_umask_is(
    environ: dict[str, str], target: str, tmp_path: Path, umask: int
):
    out = tmp_path / "out.html"
    async with serving(EngineLocation.locate(environ), answers={"return ": "3.14 * r ** 2\nx"}):
        before = os.umask(umask)
        try:
            code, _, err = await run(environ, "trace", target, "--html", str(out))
        finally:
            os.umask(before)
    assert (code, err) == (0, "")
    assert out.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("command", [["complete"], ["trace", "--html", "o.html"]])
async def test_odd_line_of_an_ignore_file_is_reported_in_one_line(
    environ: dict[str, str], tmp_path: Path, command: list[str]
):
    (tmp_path / "a.py").write_text("x = ")
    (tmp_path / ".gitignore").write_text("*.log\n[z-a]\na.py\n")
    code, out, err = await run(environ, *command, f"{tmp_path}/a.py:1:5")
    assert (code, out) == (2, "")
    assert err == (
        f"dgemma-lsp: {tmp_path}/.gitignore, line 2: [z-a] counts as git reads it: "
        "the range z-a names z only; write a-z\n"
        f"dgemma-lsp: {tmp_path}/a.py: this file is private (.gitignore: a.py)\n"
    )


@pytest.mark.parametrize("out", ["a.py", "link.html", "pipe"])
async def test_trace_replaces_neither_its_source_nor_what_is_no_regular_file(
    environ: dict[str, str], target: str, tmp_path: Path, out: str
):
    (tmp_path / "link.html").symlink_to("a.py")
    os.mkfifo(tmp_path / "pipe")
    before = (tmp_path / out).lstat()
    async with serving(EngineLocation.locate(environ), answers={"return ": "1"}) as engine:
        code, printed, err = await run(environ, "trace", target, "--html", str(tmp_path / out))
        assert engine.contexts == []
    assert (code, printed) == (2, "")
    assert re.fullmatch(rf"dgemma-lsp: {tmp_path}/{out}: is [^\n]+; name a new file\n", err)
    after = (tmp_path / out).lstat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
    assert (tmp_path / "a.py").read_text() == SOURCE.replace("|", "")


async def test_trace_prints_a_fault_in_one_line(environ: dict[str, str], tmp_path: Path):
    path = tmp_path / "a.py"
    path.write_text("FAULT", encoding="utf-8")
    async with serving(EngineLocation.locate(environ), answers={}):
        code, out, err = await run(environ, "trace", f"{path}:1:6", "--html", str(tmp_path / "o.html"))
    assert (code, out, err) == (1, "", "dgemma-lsp: out of memory; use a smaller model\n")
    assert names(tmp_path) == ["a.py"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trace", "a:1:1"), "the following arguments are required: --html"),
        (("complete", "a:1:1", "--seed", "-1"), "'-1' is not a whole number from 0 to"),
        (("complete", "a:1:1", "--deadline-ms", "0"), "'0' is not a whole number from 1 to 600000"),
        (("doctor", "--device", "tpu"), "argument --device: must be auto, cpu, cuda or cuda:N, not 'tpu'"),
        (("demo", "--model", ""), "argument --model: must be a short name or the path of a model"),
        (("--tcp", "x"), "'x' is not HOST:PORT"),
        (("nonsense",), "invalid choice: 'nonsense'"),
    ],
)
async def test_wrong_arguments_are_refused(environ: dict[str, str], arguments: tuple[str, ...], message: str):
    code, _, err = await run(environ, *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ((), "or add gpu.invalid, without a port, to engine.plainHttpHosts (on the command line: --plain-http-host)"),
        (("--plain-http-host", "gpu.lan"), "or add gpu.invalid, without a port, to engine.plainHttpHosts"),
        (("--plain-http-host", "gpu.invalid:8012"), "or add gpu.invalid, without a port, to engine.plainHttpHosts"),
        (("--plain-http-host", "gpu.invalid"), "gpu.invalid:8012 is not found"),
        (
            ("--plain-http-host", "a b"),
            "argument --plain-http-host: cannot be used: 'a b' is not a host name, such as gpu.lan",
        ),
    ],
)
async def test_plain_http_to_another_machine_needs_its_name(
    environ: dict[str, str], target: str, option: tuple[str, ...], message: str
):
    _, out, errors = await run(environ, "complete", target, "--url", "http://gpu.invalid:8012", *option)
    assert out == ""
    assert message in errors and "Traceback" not in errors


async def test_version(environ: dict[str, str]):
    code, out, _ = await run(environ, "--version")
    assert code == 0
    assert out.startswith("dgemma-lsp ")


async def test_serve_ends_when_the_editor_has_died(environ: dict[str, str]):
    code, out, err = await run(environ)
    assert (code, out, err) == (1, "", "")


async def test_doctor_without_an_engine_warns_and_names_the_remedy(environ: dict[str, str]):
    code, out, _ = await run(environ, "doctor")
    assert code == 0
    assert re.search(r"^warn +engine .*\n +-> dgemma-engine start --model tiny$", out, re.MULTILINE)


async def test_doctor_reports_the_running_engine(environ: dict[str, str]):
    async with serving(EngineLocation.locate(environ), answers={}):
        code, out, _ = await run(environ, "doctor", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["usable"] is True
    found = {check["name"]: check for check in report["checks"]}
    assert "process 4242" in found["engine"]["detail"]
    assert found["model"]["detail"] == "fake (/models/fake)"
    assert found["memory"]["detail"].endswith("the engine holds 1.0 GiB")


@pytest.mark.parametrize(("by", "age", "verdict"), [(-1, "older", "warn"), (1, "newer", "fail")])
async def test_engine_of_another_version_is_reported_in_one_sentence(
    environ: dict[str, str], target: str, by: int, age: str, verdict: str
):
    async with serving(EngineLocation.locate(environ), answers={"return ": "1"}, protocol=PROTOCOL + by) as engine:
        _, doctor, _ = await run(environ, "doctor")
        code, out, err = await run(environ, "complete", target)
        assert engine.contexts == []
    assert re.search(rf"^{verdict} +engine .*of an? {age} version\n +-> .*dgemma-engine stop$", doctor, re.MULTILINE)
    assert (code, out) == (1, "")
    assert re.fullmatch(rf"dgemma-lsp: the running engine is of an? {age} version; .*dgemma-engine stop\n", err)


async def test_doctor_fails_for_a_folder_that_holds_no_model(environ: dict[str, str], tmp_path: Path):
    code, out, _ = await run(environ, "doctor", "--model", str(tmp_path))
    assert code == 1
    assert re.search(r"^fail +model .*no config\.json", out, re.MULTILINE)


async def test_doctor_fails_for_a_socket_directory_that_is_a_file(environ: dict[str, str], tmp_path: Path):
    path = tmp_path / "file"
    path.touch()
    code, out, _ = await run(environ | {"DGEMMA_RUNTIME_DIR": str(path)}, "doctor")
    assert code == 1
    assert re.search(r"^fail +socket directory .*is not a directory", out, re.MULTILINE)


async def test_demo_ends_with_one_json_line(environ: dict[str, str]):
    async with serving(
        EngineLocation.locate(environ), answers={"return sum(": "item.price", "(user) => ": "user.name"}
    ):
        code, out, err = await run(environ, "demo")
    assert (code, err) == (0, "")
    figures = json.loads(out.splitlines()[-1])
    assert list(figures) == ["completions", "shown", "right", "median_ms", "p95_ms", "model", "device"]
    assert figures["completions"] >= 8
    assert 0 <= figures["shown"] < figures["completions"]
    assert out.count("[it was: ") == figures["completions"]
    assert out.count("[nothing to show: ") == figures["completions"] - figures["shown"]


async def test_missing_model_is_refused_with_the_command_that_fetches_it(
    environ: dict[str, str], target: str, tmp_path: Path
):
    own = environ | {"XDG_DATA_HOME": str(tmp_path / "data")}
    code, out, err = await run(own, "complete", target, "--model", "diffusiongemma")
    assert (code, out) == (2, "")
    remedy = CATALOGUE["diffusiongemma"].remedy
    assert err == f"dgemma-lsp: the model diffusiongemma is not there yet; {remedy}\n"


async def test_replacement_of_a_missing_default_model_is_reported(environ: dict[str, str], target: str):
    own = environ | {"XDG_DATA_HOME": environ["DGEMMA_RUNTIME_DIR"]}
    async with serving(EngineLocation.locate(environ), answers={"return ": "3"}):
        code, _, err = await run(own, "complete", target, "--model", DEFAULT_MODEL)
    assert code == 0
    assert err == (
        "dgemma-lsp: the model small is not there yet, so `tiny` answers in its place; run: dgemma-engine pull small\n"
    )


async def test_old_name_of_a_model_is_reported_once(environ: dict[str, str], target: str):
    async with serving(EngineLocation.locate(environ), answers={"return ": "3"}):
        code, _, err = await run(environ, "complete", target, "--model", "embedded")
    assert code == 0
    assert err == "dgemma-lsp: the model `embedded` is called `tiny` now; write `tiny` for it\n"


@pytest.mark.parametrize("command", ["complete", "trace", "demo"])
async def test_misspelt_model_is_refused_with_the_nearest(environ: dict[str, str], target: str, command: str):
    arguments = {"complete": (target,), "trace": (target, "--html", "out.html"), "demo": ()}[command]
    code, _, err = await run(environ, command, *arguments, "--model", "smal")
    assert code == 2
    assert err.endswith("smal: no such model; did you mean small?\n")
