from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dgemma_lsp.documents.store import TextChange

TEXTS = st.text(alphabet="ab\n", max_size=12)


@given(TEXTS, TEXTS)
def test_change_turns_the_old_text_into_the_new(old: str, new: str):
    change = TextChange.between(old, new)
    assert old[: change.start] + new[change.start : change.new_end] + old[change.old_end :] == new
    if old != new:
        assert old[: change.start + 1] != new[: change.start + 1] or change.old_end == change.start


def moved(old: str, new: str, stretch: str) -> str:
    start = old.index(stretch)
    start, end = TextChange.between(old, new).moved(start, start + len(stretch))
    return new[start:end]


def test_stretch_moves_with_edits_around_it():
    assert moved("a = foo\n", "xyz\na = foo\n", "foo") == "foo"
    assert moved("a = foo\n", "a = foo\nxyz\n", "foo") == "foo"
    assert moved("a = foo", "a =  foo", "foo") == "foo"


def test_stretch_keeps_what_is_changed_in_it():
    assert moved("a = foo()\n", "a = fo-o()\n", "foo()") == "fo-o()"
    assert moved("a = foo()\n", "a = f()\n", "foo()") == "f()"
    assert moved("a = foo()\n", "a = \n", "foo()") == ""


def test_stretch_across_an_edge_is_cut_or_widened():
    assert moved("abc foo def", "abc fXX def", "foo") == "fXX"
    assert moved("abc foo def", "abQQo def", "foo") == "QQo"
