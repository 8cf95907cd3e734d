"""Faults around the plugin: each is reported once, in one sentence, and the file stays as it was."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.editors.neovim.conftest import Record, Start
from tests.editors.neovim.window import Window


def only_said(window: Window, part: str) -> str:
    """Waits for a message of the plugin, and checks that no other follows within 400 ms."""
    sentence = window.hear(part)
    window.lua("vim.wait(400)")
    assert [each for each in window.said() if each.startswith("dgemma: ")] == [sentence]
    return sentence


def test_option_cmd_that_names_no_program_is_reported_once(start: Start, tmp_path: Path) -> None:
    window = start("x = 1\n", wait=False, cmd=["/nowhere/dgemma-lsp"])
    window.lua("vim.cmd.edit(...)", str(tmp_path / "b.py"))
    assert "option cmd" in only_said(window, "/nowhere/dgemma-lsp cannot be started")


def test_no_server_anywhere(start: Start, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    environment = {"PATH": str(tmp_path / "empty"), "VIRTUAL_ENV": ""}
    window = start("x = 1\n", wait=False, environment=environment, cmd=None)
    # In a checkout with a virtual environment, the server in that environment is found.
    where = window.lua("return (require('dgemma.server').find(require('dgemma').options, nil) or {}).origin or vim.NIL")
    if where is None:
        assert "pip install 'dgemma-lsp[engine]'" in only_said(window, "the language server was not found")
    else:
        assert where == "the checkout's environment"


def test_program_of_an_opened_project_is_run_only_where_that_is_allowed(start: Start, tmp_path: Path) -> None:
    program = tmp_path / ".venv/bin/dgemma-lsp"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    (tmp_path / ".git").mkdir()
    environment = {"PATH": os.defpath, "VIRTUAL_ENV": ""}
    window = start("x = 1\n", wait=False, environment=environment, cmd=None)
    window.lua("vim.wait(300)")
    assert not (tmp_path / "ran").exists()
    window = start("x = 1\n", wait=False, environment=environment, cmd=None, project_venv=True)
    window.until((tmp_path / "ran").exists, about="started")


@pytest.mark.parametrize(
    ("cmd", "why"),
    [
        ([sys.executable, "-S", "-E", "-m", "dgemma_lsp"], "No module named"),
        (["/bin/sh", "-c", "echo bad wheel >&2; exit 3"], "code 3: bad wheel"),
    ],
    ids=["wrong python", "crash at start"],
)
def test_server_that_exits_at_once_is_reported_with_its_reason(start: Start, cmd: list[str], why: str) -> None:
    window = start("x = 1\n", wait=False, cmd=cmd)
    assert ":checkhealth dgemma" in only_said(window, why)


def test_server_that_ends_is_reported_and_started_by_the_restart_command(scripted: Start) -> None:
    window = scripted("x = \n", script={"by_line": {"x = ": ["1"]}})
    window.lua("vim.lsp.get_clients({ bufnr = 0 })[1].rpc.terminate()")
    window.hear("the server")
    window.lua("vim.cmd.DgemmaRestart()")
    window.attached()
    window.keys("A")
    window.see_ghost("1")


@pytest.mark.parametrize(
    ("experimental", "advice"),
    [
        ({}, "pip install --upgrade"),
        ({"dgemma": {"version": "0.0.1", "protocol": 0}}, "0.0.1 is older than this plugin"),
        ({"dgemma": {"version": "9.0", "protocol": 2}}, "update the plugin"),
    ],
)
def test_server_of_another_protocol_gives_ghost_text_only(
    scripted: Start, record: Record, experimental: object, advice: str
) -> None:
    window = scripted("x = \n", script={"experimental": experimental, "by_line": {"x = ": ["1"]}, "fill": ["2"]})
    assert "until then only ghost text works" in only_said(window, advice)
    window.keys("A")
    window.see_ghost("1")
    window.keys("<Esc>V:DgemmaFill<CR>")
    window.until(lambda: len(window.said()) == 2)
    assert not record.params("dgemma/fill")


def test_wrong_options_are_reported_with_the_nearest_right_one(scripted: Start) -> None:
    window = scripted(
        "x = \n",
        script={"by_line": {"x = ": ["1"]}},
        keys={"acept": "<C-y>", "dismiss": 3},
        setting={"seed": 1},
        project_venv="yes",
        key={},
    )
    sentence = only_said(window, "there is no option")
    assert "there is no option key; did you mean keys?" in sentence
    assert "keys.acept; did you mean keys.accept?" in sentence
    assert "keys.dismiss must be a key such as <Tab>, or false, not 3" in sentence
    assert "setting; did you mean settings?" in sentence
    assert "project_venv must be true or false" in sentence
    window.keys("A")
    window.see_ghost("1")


def test_buffers_that_are_no_files_are_left_alone(start: Start) -> None:
    window = start("x = 1\n")
    for command in ("help", "new", "edit fugitive:///a.py"):
        window.lua("vim.cmd(...)", command)
        window.lua("vim.bo.filetype = 'python'; vim.wait(200)")
        assert window.lua("return #vim.lsp.get_clients({ bufnr = 0, name = 'dgemma' })") == 0, command
