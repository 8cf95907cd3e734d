"""`:checkhealth dgemma`, the help file and the statusline."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.editors.neovim.conftest import Start
from tests.editors.neovim.window import PLUGIN, Window


def health(window: Window) -> str:
    window.lua("vim.cmd.checkhealth('dgemma')")
    return window.until(lambda: window.text() if "dgemma: server" in window.text() else None, about="health page")


def test_health_page_of_a_working_server(start: Start) -> None:
    window = start("x = 1\n")
    window.keys("A")
    window.until(lambda: " " in window.lua("return require('dgemma').status()"), about="a state")
    window.keys("<Esc>")
    page = health(window)
    assert "OK Neovim 0.12" in page
    assert re.search(rf"OK dgemma-lsp [\d.]+: {re.escape(sys.executable)} -m dgemma_lsp, from the option cmd", page)
    assert "OK python:" in page
    assert "its last status: " in page
    assert "ERROR" not in page


def test_health_page_of_a_broken_server(start: Start) -> None:
    window = start("x = 1\n", wait=False, cmd=["/nowhere/dgemma-lsp"])
    assert "ERROR /nowhere/dgemma-lsp cannot be started" in health(window)
    window = start("x = 1\n", wait=False, cmd=[sys.executable, "-S", "-E", "-m", "dgemma_lsp"])
    page = health(window)
    assert "does not run: " in page
    assert "pip install 'dgemma-lsp[engine]'" in page


def test_health_page_examines_the_engine_of_the_settings(start: Start) -> None:
    settings = {"engine": {"url": "http://127.0.0.1:9"}, "engine.keyFile": "relative/key"}
    page = health(start("x = 1\n", wait=False, settings=settings))
    assert "ERROR engine: engine.keyFile" in page
    settings.pop("engine.keyFile")
    page = health(start("x = 1\n", wait=False, settings=settings))
    assert "ERROR engine: 127.0.0.1:9 refuses connections" in page


def test_health_page_says_why_the_doctor_gave_no_report(start: Start, tmp_path: Path) -> None:
    (program := tmp_path / "old").write_text('#!/bin/sh\ntest "$1" = doctor || exit 0\necho no such option >&2\n')
    program.chmod(0o755)
    page = health(start("x = 1\n", wait=False, cmd=[str(program)]))
    assert "ERROR dgemma-lsp doctor gave no report: no such option" in page


def test_statusline_is_empty_in_a_buffer_without_the_server(start: Start) -> None:
    window = start("x = 1\n")
    assert window.lua("return require('dgemma').status()").startswith("dgemma")
    window.lua("vim.cmd.new()")
    assert window.lua("return require('dgemma').status()") == ""


def test_help_names_every_option_and_command(start: Start) -> None:
    window = start("x = 1\n")
    window.lua("vim.cmd.helptags(...)", str(PLUGIN / "doc"))
    page = (PLUGIN / "doc/dgemma.txt").read_text(encoding="utf-8")
    for option in window.lua("return require('dgemma.options').names()"):
        assert f"*dgemma-option-{option}*" in page, option
    commands = window.lua("return vim.tbl_keys(vim.api.nvim_get_commands({}))")
    ours = [command for command in commands if command.startswith("Dgemma")]
    assert len(ours) == 8
    for command in ours:
        assert f"*:{command}*" in page
        window.lua("vim.cmd.help(...)", f":{command}")
    assert all(len(line) <= 78 for line in page.splitlines())
