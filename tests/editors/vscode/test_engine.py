"""Windows of VS Code that share one engine."""

from __future__ import annotations

import time
from pathlib import Path

from playwright.sync_api import BrowserContext

from tests.editors.conftest import engines
from tests.editors.vscode.code_server import CodeServer
from tests.editors.vscode.conftest import bring_up
from tests.editors.vscode.processes import language_servers
from tests.editors.vscode.window import Window


def test_two_windows_share_one_engine(
    window: Window, browser_context: BrowserContext, code_server: CodeServer, workspace: Path, runtime: Path
) -> None:
    path = workspace / "second_window.py"
    path.touch()
    other = Window(browser_context.new_page(), code_server.url(workspace, path))
    other.wait_status("the first request starts the engine|Ready", timeout_ms=60_000)
    bring_up(other, workspace)
    bring_up(window, workspace)
    assert len(language_servers(runtime)) == 2
    assert len(engines(runtime)) == 1
    other.page.close()


def test_an_engine_that_is_killed_comes_back(window: Window, workspace: Path, runtime: Path) -> None:
    [engine] = engines(runtime)
    engine.kill()
    engine.wait(10)
    bring_up(window, workspace)
    [other] = engines(runtime)
    assert other.pid != engine.pid


def test_a_server_that_is_killed_comes_back(window: Window, workspace: Path, runtime: Path) -> None:
    before = {server.pid for server in language_servers(runtime)}
    server = language_servers(runtime)[-1]
    server.kill()
    server.wait(10)
    end_s = time.monotonic() + 20
    while {server.pid for server in language_servers(runtime)} <= before and time.monotonic() < end_s:
        time.sleep(0.1)
    bring_up(window, workspace)
