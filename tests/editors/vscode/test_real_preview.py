"""The canvas and the figures with the real server and engine in a real VS Code."""

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


def test_the_canvas_settles_where_the_cursor_is(window: Window, workspace: Path) -> None:
    path = workspace / "real_denoising.py"
    at_the_end(window, path)
    window.type(TYPED, delay_ms=60)
    window.wait_ghost(REST)
    assert window.recorded() == [], "without the setting nothing is drawn but the suggestion"
    window.command("dgemma: Show Denoising at the Cursor")
    window.page.locator(".statusbar-item", has_text="steps, ").wait_for()
    window.shot("real-denoising")
    assert window.recorded()[-1] == REST
    window.press("ArrowLeft")
    window.wait_no_decorations()
    assert window.saved(path) == AREA + TYPED


@pytest.mark.usefixtures("always")
def test_setting_draws_every_suggestion_while_it_settles(window: Window, workspace: Path) -> None:
    path = workspace / "always.py"
    at_the_end(window, path)
    window.type(TYPED, delay_ms=125)
    window.wait_whole_ghost(REST)
    window.shot("preview-always")
    assert REST in window.recorded(), "it was drawn before it was offered"
    window.wait_no_decorations()  # those of the last key may still be drawn while what is offered is typed through
    assert window.ghost() == REST
    window.press("Tab")
    window.wait_line(f"{TYPED}{REST}")
    assert window.saved(path) == AREA + TYPED + REST
    window.press("Control+Z")
    assert window.saved(path) == AREA + TYPED


def test_the_figures_are_a_page_that_asks_nothing_when_it_is_closed(window: Window) -> None:
    window.command("dgemma: Show Statistics")
    window.wait_line("Statistics of suggestions")
    window.wait_line("accepted share")
    window.shot("statistics")
    window.type("x")
    window.press("Control+W")
    window.page.locator(".tab", has_text="dgemma statistics").wait_for(state="detached")
