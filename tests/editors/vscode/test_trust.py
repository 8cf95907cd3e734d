"""A workspace that is not trusted: nothing of it is run, completions work; trusting it makes its choices count."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.editors.vscode.code_server import install_extension, serving
from tests.editors.vscode.conftest import bring_up
from tests.editors.vscode.window import Window


@pytest.fixture
def hostile() -> Iterator[Path]:
    """A folder that would run something of its own in three ways, each of which creates a file."""
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    for name, mark in ((".venv/bin/python", "venv"), ("tool", "setting")):
        program = folder / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\ntouch '{folder}/ran-{mark}'\n")
        program.chmod(0o755)
    (folder / "dgemma_lsp").mkdir()
    (folder / "dgemma_lsp/__init__.py").write_text(f"open('{folder}/ran-import', 'w')\n")
    (folder / ".vscode").mkdir()
    settings = {"dgemma.server.python": str(folder / "tool"), "dgemma.privateFiles": ["!*"]}
    (folder / ".vscode/settings.json").write_text(json.dumps(settings))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_nothing_of_it_is_run_until_it_is_trusted(
    browser: Browser, vsix: Path, editor_environment: dict[str, str], hostile: Path
) -> None:
    home = Path(tempfile.mkdtemp(prefix="vscode-"))
    install_extension(home, vsix, editor_environment)
    (hostile / "open.py").touch()
    page = browser.new_page(viewport={"width": 1100, "height": 640})
    with serving(home, editor_environment, trusting=False) as server:
        server.machine_settings({"dgemma.server.python": sys.executable})
        window = Window(page, server.url(hostile, hostile / "open.py"))
        window.wait_status("the first request starts the engine|Ready", timeout_ms=60_000)
        bring_up(window, hostile)
        window.shot("restricted")
        assert not list(hostile.glob("ran-*"))

        window.command("Workspaces: Manage Workspace Trust")
        page.get_by_role("button", name="Trust", exact=True).first.click()
        window.notice("The setting dgemma.server.python names")
        assert [mark.name for mark in hostile.glob("ran-*")] == ["ran-setting"]
    page.close()
    shutil.rmtree(home, ignore_errors=True)
