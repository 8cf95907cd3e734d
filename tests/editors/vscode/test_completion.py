"""Ghost text in a real VS Code with the real engine: shown, accepted, undone; the file on the disk is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.editors.vscode.documents import AREA, LOAD, REST, TYPED
from tests.editors.vscode.window import Window


@pytest.fixture
def typed(window: Window, workspace: Path, request: pytest.FixtureRequest) -> Path:
    """A file of the test's own with ghost text at its end."""
    path = workspace / f"{request.node.name.removeprefix('test_')}.py"
    path.write_text(AREA)
    window.open(path)
    window.press("Control+End")
    window.type(TYPED, delay_ms=60)
    window.wait_whole_ghost(REST)
    return path


def test_tab_accepts_all(window: Window, typed: Path) -> None:
    window.shot("ghost-text")
    window.press("Tab")
    window.wait_line(REST)
    assert window.saved(typed) == AREA + TYPED + REST


def test_one_word_is_accepted(window: Window, typed: Path) -> None:
    window.press("Control+ArrowRight")
    window.wait_whole_ghost(", height))")
    window.press("Escape")
    assert window.saved(typed) == AREA + TYPED + "width"


def test_one_undo_takes_an_accepted_suggestion_back(window: Window, typed: Path) -> None:
    window.press("Tab")
    window.wait_line(REST)
    window.press("Control+Z")
    assert window.saved(typed) == AREA + TYPED


def test_rest_of_the_suggestion_stays_while_it_is_typed(window: Window, typed: Path) -> None:
    window.type("width", delay_ms=60)
    window.wait_whole_ghost(", height))")
    window.type(", ", delay_ms=60)
    window.wait_whole_ghost("height))")
    window.press("Tab")
    window.wait_line(REST)
    assert window.saved(typed) == AREA + TYPED + REST


def test_text_that_contradicts_the_suggestion_removes_it(window: Window, typed: Path) -> None:
    window.type("9", delay_ms=60)
    window.wait_no_ghost()
    window.press("Tab")
    assert window.saved(typed).startswith(AREA + TYPED + "9")
    assert REST not in window.saved(typed)[len(AREA) :]


def test_keys_cycle_through_candidates_and_accept_one_line_of_two(window: Window, workspace: Path) -> None:
    path = workspace / "several.py"
    path.write_text(LOAD)
    window.open(path)
    window.press("Control+End")
    window.type("        ", delay_ms=60)
    first = window.wait_ghost("data = file.read()")
    window.press("Alt+]")
    second = window.wait_ghost_other_than(first)
    window.shot("second-candidate")
    window.press("Alt+[")
    window.wait_whole_ghost(first)
    longer = "Alt+]" if "return data" in second else "Alt+["
    if "return data" not in first:
        window.press(longer)
        window.wait_ghost("return data")
    window.press("Control+Alt+l")
    window.wait_whole_ghost("return data")
    window.press("Escape")
    assert window.saved(path).rstrip() == f"{LOAD}        data = file.read()"


DOCUMENTS = {
    "tabs": ("def a():\n\tprint(total, count)\n\n\ndef b():\n\t", "print(total", ", count)"),
    "crlf": (AREA.replace("\n", "\r\n"), TYPED, REST),
    "astral": (AREA.replace("print(area", "print('🚀𐍈', area"), "print('🚀𐍈', area(", REST),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_suggestion_is_accepted_after_tabs_crlf_and_astral_characters(
    window: Window, workspace: Path, name: str
) -> None:
    text, typed, rest = DOCUMENTS[name]
    path = workspace / f"{name}.py"
    path.write_bytes(text.encode())
    window.open(path)
    window.press("Control+End")
    window.type(typed, delay_ms=60)
    window.wait_whole_ghost(rest)
    window.press("Tab")
    window.wait_line(rest)
    window.save()
    assert path.read_bytes().decode() == text + typed + rest


def test_two_documents_each_get_their_own_suggestion(window: Window, workspace: Path) -> None:
    one, two = workspace / "one.py", workspace / "two.py"
    one.write_text(AREA)
    two.write_text(AREA.replace("width", "length"))
    for path, rest in ((one, "width, height))"), (two, "length, height))")):
        window.open(path)
        window.press("Control+End")
        window.type(TYPED, delay_ms=60)
        window.wait_whole_ghost(rest)
    window.press("Tab")
    window.wait_line("length, height))")
    assert window.saved(two) == AREA.replace("width", "length") + TYPED + "length, height))"
    window.open(one)
    assert window.saved(one) == AREA + TYPED
