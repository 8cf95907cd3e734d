"""Tests that need a browser install it themselves, whichever of them is the first on a machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.debian_packages import ProgramMissingError, require_program
from tests.get_chromium import get_chromium

ROOT = Path(__file__).parents[1]


@pytest.fixture
def empty_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CHROMIUM", raising=False)
    return folder


def put(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)


def apt_get_that_installs(bin_folder: Path, chromium: str) -> None:
    """Puts an `apt-get` there that installs `chromium`, as a script, and nothing before its lists are updated."""
    lists, program = bin_folder / "lists", bin_folder / "chromium"
    put(
        bin_folder / "apt-get",
        f'case "$*" in\n*update*) : >"{lists}";;\n*install*chromium*) [ -e "{lists}" ] || exit 100\n'
        f'printf "%s\\n" "#!/bin/sh" "{chromium}" >"{program}"; /bin/chmod 755 "{program}";;\nesac',
    )


def test_chromium_on_path_is_taken_as_it_is(empty_path: Path) -> None:
    put(empty_path / "chromium", "exit 0")
    put(empty_path / "apt-get", "exit 1")
    assert get_chromium() == empty_path / "chromium"


def test_named_chromium_is_taken(empty_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "browser", "exit 0")
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "browser"))
    assert get_chromium() == tmp_path / "browser"


def test_named_chromium_that_is_missing_is_not_replaced(empty_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt_get_that_installs(empty_path, "exit 0")
    monkeypatch.setenv("CHROMIUM", "/nowhere/chromium")
    with pytest.raises(ProgramMissingError, match=r"There is no program /nowhere/chromium\. Set CHROMIUM"):
        get_chromium()


def test_missing_chromium_is_installed(empty_path: Path) -> None:
    apt_get_that_installs(empty_path, "exit 0")
    assert get_chromium() == empty_path / "chromium"


@pytest.mark.parametrize(
    ("apt_get", "cause"),
    [
        (None, "no apt-get to install it"),
        ("echo 'E: Could not open lock file, are you root?' >&2; exit 100", "cannot install chromium: E: Could not"),
        ("exit 7", "cannot install chromium: it exited with 7"),
        ("exit 0", "PATH has no chromium yet"),
    ],
)
def test_chromium_that_cannot_be_had_is_reported_with_a_fix(empty_path: Path, apt_get: str | None, cause: str) -> None:
    if apt_get is not None:
        put(empty_path / "apt-get", apt_get)
    with pytest.raises(ProgramMissingError, match=cause) as caught:
        get_chromium()
    assert "CHROMIUM to its path" in str(caught.value)


def test_compiler_of_the_editors_modules_is_installed(empty_path: Path) -> None:
    program = empty_path / "g++"
    put(
        empty_path / "apt-get",
        f'case "$*" in *install*g++*make*) echo >"{program}"; /bin/chmod 755 "{program}";; esac',
    )
    assert require_program("g++", ("g++", "make")) == program


def run_pytest(*arguments: str, environ: dict[str, str]) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False).stdout


@pytest.mark.e2e
def test_first_browser_test_on_a_bare_machine_passes(chromium: Path, empty_path: Path) -> None:
    apt_get_that_installs(empty_path, f'PATH={os.defpath} exec {chromium} \\"\\$@\\"')
    said = run_pytest(
        "tests/e2e/test_trace_in_browser.py", "-k", "reason_for_an_empty_answer", environ=dict(os.environ)
    )
    assert re.search(r"^1 passed", said, flags=re.MULTILINE), said


@pytest.mark.e2e
def test_first_browser_test_where_no_browser_can_be_had_is_skipped_with_the_reason(empty_path: Path) -> None:
    said = run_pytest(
        "tests/e2e/test_trace_in_browser.py", "-k", "reason_for_an_empty_answer", environ=dict(os.environ)
    )
    assert re.search(r"^1 skipped", said, flags=re.MULTILINE), said
    assert "no apt-get to install it" in said


def test_every_browser_of_the_tests_starts_after_chromium_is_there() -> None:
    arguments = ("--setup-plan", "-m", "editors or e2e", "tests/editors/vscode", "tests/e2e/test_trace_in_browser.py")
    said = run_pytest(*arguments, environ=dict(os.environ))
    browsers = re.findall(r"SETUP +\w browser\b(.*)", said)
    assert len(browsers) == 2, said
    assert all("(fixtures used: chromium" in uses for uses in browsers), browsers
