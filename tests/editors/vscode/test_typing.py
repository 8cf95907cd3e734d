"""Suggestions during typing in a real VS Code: at 8 keys a second, for the newest text only, one of three."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.editors.vscode.documents import AREA, REST, TYPED
from tests.editors.vscode.window import Window

KEYS_PER_S = 8


def test_at_eight_keys_a_second_the_right_text_appears_and_is_typed_through(window: Window, workspace: Path) -> None:
    path = workspace / "pace.py"
    path.write_text(AREA)
    window.open(path)
    window.press("Control+End")
    window.type(TYPED, delay_ms=1_000 / KEYS_PER_S)
    window.wait_whole_ghost(REST)
    for number, key in enumerate(REST[:9], start=1):
        window.type(key, delay_ms=1_000 / KEYS_PER_S)
        window.wait_whole_ghost(REST[number:])
    window.press("Tab")
    window.wait_line(f"{TYPED}{REST}")
    assert window.saved(path) == AREA + TYPED + REST


@pytest.mark.usefixtures("stub")
def test_an_answer_to_an_older_text_is_not_shown(window: Window, workspace: Path) -> None:
    path = workspace / "late.py"
    path.touch()
    window.open(path)
    window.type("late(")
    window.page.wait_for_timeout(200)
    window.type("(")
    window.wait_whole_ghost("from_the_stub")
    window.page.wait_for_timeout(2_500)
    assert window.ghost() == "from_the_stub"
    window.press("Tab")
    window.wait_line("late((from_the_stub")
    assert window.saved(path) == "late((from_the_stub"


@pytest.mark.usefixtures("stub")
def test_keys_cycle_through_three_candidates(window: Window, workspace: Path) -> None:
    path = workspace / "three.py"
    path.touch()
    window.open(path)
    window.type("three = ")
    for text in ("first", "second", "third", "first", "second"):
        window.wait_whole_ghost(text)
        window.press("Alt+]")
    window.wait_whole_ghost("third")
    window.press("Tab")
    window.wait_line("three = third")
    assert window.saved(path) == "three = third"
    window.press("Control+Z")
    assert window.saved(path) == "three = "
