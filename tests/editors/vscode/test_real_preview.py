"""The preview of denoising and the statistics, with the real server and engine in a real VS Code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.editors.vscode.code_server import CodeServer
from tests.editors.vscode.documents import AREA, REST, TYPED
from tests.editors.vscode.window import Window


@pytest.fixture
def always(code_server: CodeServer) -> Iterator[None]:
    python = {"dgemma.server.python": sys.executable}
    code_server.machine_settings(python | {"dgemma.preview.always": True})
    yield
    code_server.machine_settings(python)


def at_the_end(window: Window, path: Path) -> None:
    path.write_text(AREA)
    window.open(path)
    window.press("Control+End")
    window.record_drawn()


def test_command_draws_drafts_at_the_cursor_up_to_the_answer(window: Window, workspace: Path) -> None:
    path = workspace / "real_denoising.py"
    at_the_end(window, path)
    window.type(TYPED, delay_ms=60)
    window.wait_ghost(REST)
    assert window.recorded() == [], "drafts were drawn without the command or the setting"
    window.command("dgemma: Show Denoising at the Cursor")
    window.page.locator(".statusbar-item", has_text="steps, ").wait_for()
    window.shot("real-denoising")
    assert window.recorded()[-1] == REST
    window.press("ArrowLeft")
    window.wait_no_decorations()
    assert window.saved(path) == AREA + TYPED


@pytest.mark.usefixtures("always")
def test_setting_draws_the_drafts_of_every_suggestion(window: Window, workspace: Path) -> None:
    path = workspace / "always.py"
    at_the_end(window, path)
    window.type(TYPED, delay_ms=125)
    window.wait_whole_ghost(REST)
    window.shot("preview-always")
    assert REST in window.recorded(), "the final draft was not drawn before the suggestion"
    # Drafts of the last request may still be drawn while the earlier suggestion is typed through.
    window.wait_no_decorations()
    assert window.ghost() == REST
    window.press("Tab")
    window.wait_line(f"{TYPED}{REST}")
    assert window.saved(path) == AREA + TYPED + REST
    window.press("Control+Z")
    assert window.saved(path) == AREA + TYPED


def test_page_of_statistics_is_closed_without_a_prompt_to_save(window: Window) -> None:
    window.command("dgemma: Show Statistics")
    window.wait_line("Statistics of suggestions")
    window.wait_line("accepted share")
    window.shot("statistics")
    window.type("x")
    window.press("Control+W")
    window.page.locator(".tab", has_text="dgemma statistics").wait_for(state="detached")
