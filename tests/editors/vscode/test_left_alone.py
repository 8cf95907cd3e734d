"""Files that are too large or private, with the real server in a real VS Code: refused with one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.editors.vscode.documents import AREA, REST, TYPED
from tests.editors.vscode.window import Window


@pytest.fixture(autouse=True)
def quiet(window: Window, workspace: Path) -> Iterator[None]:
    yield
    window.dismiss_notices()
    window.open(workspace / "warm.py")


def sentences(window: Window) -> list[str]:
    """Returns the extension's notifications, once none of them shows progress."""
    expect(window.page.locator(".notification-toast", has_text="dgemma: filling")).to_have_count(0)
    toasts = window.page.locator(".notification-toast", has_text="dgemma: ").all_inner_texts()
    return [" ".join(text.split()) for text in toasts]


def fill_all(window: Window) -> None:
    window.press("Control+A")
    window.command("dgemma: Fill the Selection")


def test_private_file_is_neither_completed_nor_filled(window: Window, workspace: Path) -> None:
    path = workspace / ".env"
    path.write_text("KEY=width\nOTHER=KEY\nTHIRD=")
    window.open(path)
    window.press("Control+End")
    window.type("KE", delay_ms=60)
    window.wait_status(r"^circle-slash .*this file is private \(\.env\)")
    window.press("Alt+\\")
    fill_all(window)
    window.notice("dgemma: this file is private (.env)")
    window.shot("private")
    assert window.ghost() == ""
    assert sentences(window) == ["dgemma: this file is private (.env)"]
    assert window.saved(path) == "KEY=width\nOTHER=KEY\nTHIRD=KE"
    window.open(workspace / "warm.py")
    window.wait_status("Last suggestion|the first request starts the engine")


def test_file_too_long_to_fill_is_completed(window: Window, workspace: Path) -> None:
    """The file has 4.5 million characters; suggestions still work in it."""
    path = workspace / "long.py"
    text = f"{AREA}\n" + f"text = '{'x' * 40}'\n" * 90_000
    path.write_text(text)
    window.open(path)
    fill_all(window)
    window.notice("dgemma: this file is too long to fill in")
    window.shot("too-long")
    [sentence] = sentences(window)
    assert "at most 4,000,000" in sentence
    window.go_to(10, 1)
    window.type(TYPED, delay_ms=60)
    window.wait_ghost(REST)
    window.press("Tab")
    window.wait_line(f"{TYPED}{REST}")
    assert window.saved(path) == text.replace("\n\ntext", f"\n{TYPED}{REST}\ntext", 1)


def test_file_in_which_vs_code_draws_no_suggestion_is_not_completed(window: Window, workspace: Path) -> None:
    """The file has 310,000 lines: Tab would accept ghost text that is not drawn."""
    path = workspace / "lines.py"
    text = f"{AREA}\n" + "x = 1\n" * 310_000
    path.write_text(text)
    window.open(path)
    window.wait_status("^circle-slash .*draws no suggestions in a file of more than 300,000 lines")
    window.go_to(10, 1)
    window.type(TYPED, delay_ms=60)
    window.press("Alt+\\")
    window.page.wait_for_timeout(1_500)
    window.shot("not-drawn")
    window.press("Tab")
    assert window.saved(path) == text.replace("\n\nx", f"\n{TYPED} \nx", 1)


def test_fill_of_a_file_that_is_hidden_from_extensions_is_refused(window: Window, workspace: Path) -> None:
    path = workspace / "giant.py"
    with path.open("w") as file:
        file.truncate(60_000_000)
    window.reveal(path)
    window.page.get_by_text("because it is very large").wait_for()
    window.wait_status("^circle-slash .*does not show this file to extensions")
    window.command("dgemma: Fill the Selection")
    window.notice("dgemma: VS Code does not show this file to extensions, it may be too large; nothing was changed.")
    window.shot("not-shown")
    assert path.stat().st_size == 60_000_000
    window.press("Control+W")
