"""Both programs on unusual terminals: streams that are closed, full or ASCII, and names and folders that do not exist.

Each case is one sentence on standard error and an exit code, never a traceback.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from dgemma_engine.ipc.endpoint import EngineLocation

from tests.lsp.engine_process import serving
from tests.lsp.programs import ENGINE, LSP, environ_in, run, without_account

pytestmark = pytest.mark.e2e

TINY = ("--model", "tiny")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "a.py").write_text("def é():\n    return \n", encoding="utf-8")
    return environ_in(tmp_path)


def check_sentence(result: tuple[int, bytes, str], *, code: int, says: str) -> None:
    found, out, err = result
    assert "Traceback" not in err, err
    *usage, sentence = err.splitlines()
    assert all(line.startswith(("usage:", " ")) for line in usage), err
    assert re.match(r"dgemma-(lsp|engine)[ :]", sentence)
    assert re.search(says, sentence), err
    assert (found, out) == (code, b"")


@pytest.mark.parametrize(
    ("program", "arguments"),
    [(LSP, ("settings",)), (LSP, ("doctor",)), (LSP, ("--version",)), (LSP, ("--help",)), (ENGINE, ("status",))],
)  # fmt: skip
def test_output_that_cannot_be_written_is_one_sentence(
    environ: dict[str, str], program: str, arguments: tuple[str, ...]
) -> None:
    says = "standard output cannot be written .*; redirect it elsewhere"
    closed = run(environ, program, *arguments, before=lambda: os.close(1), out=None)
    check_sentence(closed, code=1, says=says)
    with Path("/dev/full").open("wb") as full:
        check_sentence(run(environ, program, *arguments, out=full.fileno()), code=1, says=says)
        if program == LSP:
            unbuffered = environ | {"PYTHONUNBUFFERED": "1"}
            check_sentence(run(unbuffered, program, *arguments, out=full.fileno()), code=1, says=says)


@pytest.mark.parametrize(("program", "arguments"), [(LSP, ("settings", "--schema")), (ENGINE, ("status",))])
def test_output_whose_reader_has_left_is_silent(
    environ: dict[str, str], program: str, arguments: tuple[str, ...]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert run(environ, program, *arguments, out=writer) == (1, b"", "")
    os.close(writer)


@pytest.mark.parametrize(("number", "stream"), [(0, "input"), (1, "output")])
def test_server_without_its_streams_is_one_sentence(environ: dict[str, str], number: int, stream: str) -> None:
    result = run(environ, LSP, before=lambda: os.close(number), out=None)
    check_sentence(result, code=2, says=f"standard {stream} is closed; an editor starts dgemma-lsp with pipes")


@pytest.mark.parametrize("program", [LSP, ENGINE])
def test_command_that_reads_nothing_runs_without_standard_input(environ: dict[str, str], program: str) -> None:
    code, out, err = run(environ, program, "--version", before=lambda: os.close(0))
    assert (code, err) == (0, "")
    assert out.startswith(b"dgemma-")


@pytest.mark.parametrize("setting", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
async def test_ascii_output_escapes_what_it_cannot_express(
    environ: dict[str, str], setting: dict[str, str], tmp_path: Path
) -> None:
    if "LC_ALL" in setting:
        environ = {**environ, "PYTHONCOERCECLOCALE": "0"}
        del environ["PYTHONIOENCODING"]
    async with serving(EngineLocation.locate(environ), answers={"return ": "'ü'"}):
        code, out, err = await in_thread(environ | setting, "complete", f"{tmp_path}/a.py:2:12", *TINY)
        assert (code, err) == (0, "")
        assert out.startswith(b"def \\xe9():\n    return >>'\\xfc'<<\n")
        code, out, err = await in_thread(environ | setting, "complete", f"{tmp_path}/a.py:2:12", "--json", *TINY)
    assert (code, err, json.loads(out)["text"]) == (0, "", "'ü'")


async def test_name_that_is_not_utf_8_is_traced_and_named(environ: dict[str, str], tmp_path: Path) -> None:
    source, page = os.fsencode(tmp_path) + b"/b\xff.py", os.fsencode(tmp_path) + b"/o\xff.html"
    (tmp_path / os.fsdecode(b"b\xff.py")).write_text("x = \n")
    async with serving(EngineLocation.locate(environ), answers={"x = ": "1"}):
        code, out, err = await in_thread(environ, "trace", source + b":1:5", "--html", page, *TINY)
    assert (code, err) == (0, "")
    assert out.endswith(b"/b\\udcff.py\n")
    assert (tmp_path / os.fsdecode(b"o\xff.html")).read_text(encoding="utf-8").startswith("<!doctype html>")


async def in_thread(environ: Mapping[str, str], *arguments: str | bytes) -> tuple[int, bytes, str]:
    """Runs the program while this loop answers as the engine."""
    return await asyncio.to_thread(run, environ, LSP, *arguments)


@pytest.mark.parametrize(
    ("program", "arguments", "code", "says"),
    [
        (LSP, ("complete", "a.py:2:12", "--model", "~no-such-user/x"), 2, "~no-such-user/x: no such home folder"),
        (ENGINE, ("start", "--model", "~no-such-user/x"), 2, "~no-such-user/x: no such home folder"),
        (ENGINE, ("start", "--model", "loop/x"), 2, "loop/x: (no such folder|cannot be read)"),
        (LSP, ("trace", "a.py:2:12", "--html", ""), 2, "--html: the file name is empty"),
        (LSP, ("trace", "a.py:2:12", "--html", "/"), 2, "cannot write /: Is a directory; name a file"),
        (LSP, ("complete", "/dev/zero:1:1"), 2, "/dev/zero: is longer than 32 MiB; name a shorter file"),
        (LSP, ("complete", "binary:1:1"), 2, "binary: is not UTF-8 .byte 0.; convert it first"),
        (LSP, ("complete", "folder:1:1"), 2, "folder: is a directory, not a file"),
        (LSP, ("complete", "a.py:9:1"), 2, "a.py: no line 9; it has lines 1 to 3"),
        (LSP, ("complete", "a.py:0:0"), 2, "a.py: no line 0; it has lines 1 to 3"),
        (LSP, ("complete", "loop:1:1"), 2, "loop: cannot be read .Too many levels of symbolic links"),
        (LSP, ("complete", f"{'n' * 300}:1:1"), 2, "cannot be read .File name too long"),
        (ENGINE, ("start", "--idle-minutes", "nan"), 2, "nan must be 0 or more minutes"),
    ],
)  # fmt: skip
def test_argument_that_cannot_be_used_is_one_sentence(
    environ: dict[str, str], tmp_path: Path, program: str, arguments: tuple[str, ...], code: int, says: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "binary").write_bytes(b"\x89\xff\x00")
    check_sentence(run(environ, program, *arguments, cwd=tmp_path), code=code, says=says)


@pytest.mark.parametrize(("program", "arguments"), [(LSP, ("complete", "a.py:2:12", *TINY)), (ENGINE, ("status",))])
def test_runtime_directory_without_a_home_is_one_sentence(
    environ: dict[str, str], tmp_path: Path, program: str, arguments: tuple[str, ...]
) -> None:
    result = run(environ | {"DGEMMA_RUNTIME_DIR": "~no-such-user"}, program, *arguments, cwd=tmp_path)
    check_sentence(result, code=1, says="DGEMMA_RUNTIME_DIR=~no-such-user: no such home folder; set it to an absolute")


def test_machine_without_a_folder_for_temporary_files_is_one_sentence(environ: dict[str, str], tmp_path: Path) -> None:
    result = run(environ | {"DGEMMA_RUNTIME_DIR": ""}, ENGINE, "status", cwd=tmp_path, before=forbid_files)
    check_sentence(result, code=1, says="no directory for temporary files .*; set DGEMMA_RUNTIME_DIR to a directory of")


def forbid_files() -> None:
    """Lets the process write no byte into any file."""
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@pytest.mark.parametrize(
    ("program", "arguments", "code"),
    [(LSP, ("complete", "../a.py:2:12"), 2), (LSP, ("trace", "../a.py:2:12", "--html", "o.html"), 2),
     (ENGINE, ("status", "--model", "folder"), 1)],
)  # fmt: skip
def test_current_folder_that_was_removed_is_one_sentence(
    environ: dict[str, str], tmp_path: Path, program: str, arguments: tuple[str, ...], code: int
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    result = run(environ, program, *arguments, cwd=gone, before=gone.rmdir)
    check_sentence(result, code=code, says="the current folder was removed; change to one that exists")


@pytest.mark.parametrize("arguments", [("doctor",), ("stats",), ("complete", "a.py:2:99")])
def test_user_without_home_and_account_meets_no_traceback(
    environ: dict[str, str], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    del environ["HOME"]
    code, _, err = run(environ, LSP, *arguments, cwd=tmp_path, prelude=without_account)
    assert "Traceback" not in err
    assert code == (2 if arguments[0] == "complete" else 0)
