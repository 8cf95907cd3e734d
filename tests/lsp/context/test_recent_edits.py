from __future__ import annotations

import pytest

from dgemma_lsp.context.recent_activity import RecentEdits

BASE = "".join(f"line {n}\n" for n in range(40))


def diffs(*texts: str, uri: str = "a", around: str = "", of: str = "b") -> list[str]:
    """Returns the diffs seen from document `of` after document `uri` had these texts."""
    edits = RecentEdits()
    for text in texts:
        edits.observe(uri, f"{uri}.py", text)
    assert {snippet.path for snippet in edits.snippets(of, around)} <= {f"{uri}.py"}
    return [snippet.text for snippet in edits.snippets(of, around)]


@pytest.mark.parametrize(
    ("old", "new", "diff"),
    [
        ("a\nb\nc\n", "a\nX\nc\n", "-b\n+X"),
        ("a\nb\nc\n", "a\nb\nX\nc\n", "+X"),
        ("a\nb\nc\n", "a\nc\n", "-b"),
        ("a\nb", "a\nb\nX", "+X"),
        ("", "X", "+X"),
        ("a\nfoo(x)\nc\n", "a\nfoo(x, y)\nc\n", "-foo(x)\n+foo(x, y)"),
        ("a\nb\nc\nd\n", "a\nX\nc\nY\n", "-b\n-c\n-d\n+X\n+c\n+Y"),
        ("a\r\nb\r\n", "a\r\nX\r\n", "-b\n+X"),
    ],
)
def test_edit_is_a_small_diff(old: str, new: str, diff: str) -> None:
    assert diffs(old, new) == [diff]


def test_closed_document_keeps_its_edits_but_not_its_text() -> None:
    edits = RecentEdits()
    for text in (BASE, BASE.replace("line 5\n", "five\n")):
        edits.observe("a", "a.py", text)
    edits.closed("a")
    edits.closed("never seen")
    assert [snippet.text for snippet in edits.snippets("b", "")] == ["-line 5\n+five"]
    edits.observe("a", "a.py", "all new\n")
    assert [snippet.text for snippet in edits.snippets("b", "")] == ["-line 5\n+five"]


def test_keystrokes_next_to_each_other_are_one_edit() -> None:
    typed = [BASE.replace("line 5\n", f"line 5\n{'print(x)'[:count]}\n") for count in range(9)]
    assert diffs(BASE, *typed) == ["+print(x)"]


def test_change_elsewhere_begins_a_new_edit() -> None:
    first = BASE.replace("line 5\n", "five\n")
    assert diffs(BASE, first, first.replace("line 30\n", "thirty\n")) == ["-line 5\n+five", "-line 30\n+thirty"]


def test_edit_above_moves_nothing_of_an_edit_below() -> None:
    first = BASE.replace("line 30\n", "thirty\n")
    second = first.replace("line 5\n", "five\nand a half\n")
    assert diffs(BASE, first, second, second.replace("five", "5")) == ["-line 30\n+thirty", "-line 5\n+5\n+and a half"]


@pytest.mark.parametrize(
    "texts",
    [
        (BASE,),
        (BASE, BASE),
        (BASE, BASE.replace("line 5", "x"), BASE),
        (BASE, BASE.replace("line 5", "  line 5")),
        (BASE, BASE.replace("line 5\n", "new\n" * 13)),
        (BASE, BASE.replace("line 5", "x" * 2_000)),
    ],
    ids=["opened", "same", "undone", "white space", "pasted", "long line"],
)
def test_change_that_is_no_small_edit_gives_no_diff(texts: tuple[str, ...]) -> None:
    assert diffs(*texts) == []


def test_unfinished_edit_is_given_to_other_documents_only() -> None:
    changed = BASE.replace("line 5\n", "five\n")
    assert diffs(BASE, changed, of="a") == []
    assert diffs(BASE, changed, changed.replace("line 30", "thirty"), of="a") == ["-line 5\n+five"]


def test_edit_that_stands_around_the_cursor_is_left_out() -> None:
    changed = BASE.replace("line 5\n", "five\n")
    texts = BASE, changed, changed.replace("line 30", "thirty")
    assert diffs(*texts, of="a", around="four\n  five\n") == []
    assert diffs(*texts, of="b", around="four\n  five\n")


def test_the_last_eight_edits_are_kept() -> None:
    texts = [BASE]
    for n in range(0, 40, 4):
        texts.append(texts[-1].replace(f"line {n}\n", f"new {n}\n"))
    assert [diff.split("+")[1] for diff in diffs(*texts)] == [f"new {n}" for n in range(8, 40, 4)]


def test_forgotten_document_gives_no_diff() -> None:
    edits = RecentEdits()
    changed = BASE.replace("line 5\n", "five\n")
    for text in (BASE, changed, changed.replace("line 30", "thirty")):
        edits.observe("a", "a.py", text)
    edits.forget("a")
    assert edits.snippets("b", "") == ()
