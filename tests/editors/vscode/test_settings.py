"""Settings changed while a real VS Code runs: the server takes them, and starts again only for the user's own lists."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.editors.vscode.code_server import CodeServer
from tests.editors.vscode.conftest import bring_up
from tests.editors.vscode.documents import AREA, TYPED
from tests.editors.vscode.processes import language_servers
from tests.editors.vscode.window import Window


def test_a_change_takes_effect_in_the_same_process(
    window: Window, code_server: CodeServer, workspace: Path, runtime: Path
) -> None:
    python = {"dgemma.server.python": sys.executable}
    before = [server.pid for server in language_servers(runtime)]
    path = workspace / "settings.py"
    path.write_text(AREA)
    window.open(path)
    code_server.machine_settings(python | {"dgemma.pausedLanguages": ["python"]})
    window.wait_status("Paused for the language python")
    window.press("Control+End")
    window.type(TYPED, delay_ms=60)
    assert window.ghost() == ""
    code_server.machine_settings(python)
    bring_up(window, workspace)
    assert [server.pid for server in language_servers(runtime)] == before


def test_private_files_of_the_user_restart_the_server_and_take_effect(
    window: Window, code_server: CodeServer, workspace: Path, runtime: Path
) -> None:
    python = {"dgemma.server.python": sys.executable}
    before = {server.pid for server in language_servers(runtime)}
    path = workspace / "settings.py"
    path.write_text(AREA)
    window.open(path)
    code_server.machine_settings(python | {"dgemma.privateFiles": ["settings.py"]})
    while not (now := {server.pid for server in language_servers(runtime)}) or now & before:
        window.page.wait_for_timeout(100)
    # Keys that are typed before the server is ready send no request.
    window.wait_status("first request starts the engine")
    window.press("Control+End")
    window.type(TYPED, delay_ms=60)
    window.wait_status("^circle-slash .*private")
    assert window.ghost() == ""
    code_server.machine_settings(python)
    bring_up(window, workspace)


def test_a_wrong_value_is_reported_by_the_server(window: Window, code_server: CodeServer) -> None:
    python = {"dgemma.server.python": sys.executable}
    code_server.machine_settings(python | {"dgemma.deadlineMs": 7})
    window.notice("dgemma.deadlineMs must be a whole number from 50 to 60000, not 7")
    code_server.machine_settings(python)
    window.dismiss_notices()


def test_settings_page_lists_the_settings_and_opens_without_a_notification(window: Window) -> None:
    window.command("dgemma: Settings")
    window.page.get_by_text("Deadline Ms").first.wait_for()
    window.shot("settings")
    window.press("Control+W")
    window.page.wait_for_timeout(500)
    assert window.page.locator(".notification-toast").count() == 0
