"""Where the text around a cursor is cut. `|` is the cursor."""

from __future__ import annotations

import unicodedata

import pytest
from dgemma_engine.tokenization.token_healing import Boundary, back_off, trimmed
from hypothesis import given
from hypothesis import strategies as st

CODE = st.text(st.sampled_from("ab_1 \t\n\r(\"'.,=!é\u0301名𝒳😀") | st.characters(), max_size=90)


def check(source: str, *, opening: str, closing: str = "") -> None:
    prefix, _, suffix = source.partition("|")
    boundary = back_off(prefix, suffix)
    assert (boundary.opening, boundary.closing) == (opening, closing)
    assert boundary.prefix + boundary.opening == prefix
    assert boundary.closing + boundary.suffix == suffix


@pytest.mark.parametrize(
    ("source", "opening"),
    [
        ("x = conf|", " conf"),
        ("self.confi|", "confi"),
        ("imp|", "imp"),
        ("import os\nimp|", "imp"),
        ("import os\r\nimp|", "imp"),
        ("    retur|", "retur"),
        ("\tretur|", "retur"),
        ("\t retur|", " retur"),
        ("x\n retur|", " retur"),
        (" retur|", " retur"),
        ("x =  conf|", "conf"),
        ("x =\tconf|", "conf"),
        ("print(na|)", "na"),
        ("def __in|", " __in"),
        ("self.|conf", ""),
        ("self._con|", "._con"),
        ("self._|", "._"),
        ("(_con|", "_con"),
        ("gr\u00f6\u00dfe = gr\u00f6\u00df|", " gr\u00f6\u00df"),
        ("x = cafe\u0301|", " cafe\u0301"),
        ("x = \u540d\u524d|", " \u540d\u524d"),
        ("x = \U0001d4b3\U0001d4b4|", " \U0001d4b3\U0001d4b4"),
        ("# \U0001f600|", ""),
        ("# \U0001f600ab|", "ab"),
    ],
)
def test_back_off_takes_the_word_with_one_space(source: str, opening: str) -> None:
    check(source, opening=opening)


@pytest.mark.parametrize(
    ("source", "opening"),
    [("x1|", ""), ("x1_fo|", "_fo"), ("x = 12|", ""), ("x = 1e|", "e"), ("x1|y", ""), ("x = \u0663|", "")],
)
def test_back_off_treats_digits_as_separate_tokens(source: str, opening: str) -> None:
    check(source, opening=opening)


@pytest.mark.parametrize(
    ("source", "opening", "closing"),
    [
        ("foo(sel|f.x)", "sel", "f"),
        ("x = con|fig_path()", " con", "fig_path"),
        ("fo|o1", "fo", "o"),
        ("fo|1", "fo", ""),
        ("cafe|\u0301 = 1", "cafe", "\u0301"),
        ("\u540d|\u524d = 1", "\u540d", "\u524d"),
        ("\U0001d4b3|\U0001d4b4", "\U0001d4b3", "\U0001d4b4"),
        ("self._|conf", "._", "conf"),
        ("|self", "", ""),
        ("x = |self", " ", ""),
        ("(|self", "(", ""),
        ("self|.x", "self", ""),
        ("self|\r\nx", "self", ""),
    ],
)
def test_back_off_takes_the_rest_of_a_word_from_the_suffix(source: str, opening: str, closing: str) -> None:
    check(source, opening=opening, closing=closing)


@pytest.mark.parametrize(
    ("source", "opening"),
    [
        ("return |", " "),
        ("range(0, |10)", " "),
        ("x = |  # why", " "),
        ("x =\t |", " "),
        ("x = 1  |", ""),
        ("x\t|", ""),
        ("x\u00a0|", ""),
    ],
)
def test_back_off_takes_one_space(source: str, opening: str) -> None:
    check(source, opening=opening)


@pytest.mark.parametrize(
    ("source", "opening"),
    [
        ("def f():\n    |", "    "),
        ("def f():\r\n    |", "    "),
        ("def f():\r    |", "    "),
        ("if x:\n\t\t|", "\t\t"),
        ("if x:\n\t  |pass", "\t  "),
        ("    |", "    "),
        ("x\n |", " "),
        ("x\n    |    y = 1", "    "),
        ("x\n|", ""),
        ("x\r\n|", ""),
        ("x\r|\n", ""),
        ("x\n\n|\n", ""),
        ("|", ""),
        ("x\x0c    |", ""),
    ],
)
def test_back_off_takes_indentation_and_no_line_break(source: str, opening: str) -> None:
    check(source, opening=opening)


@pytest.mark.parametrize(
    ("source", "opening"),
    [
        ("print(|)", "("),
        ("print(|", "("),
        ("x !|", " !"),
        ("x -|", " -"),
        ("f(x=|", "="),
        ("d['a'|", "'"),
        ('    """|', '"""'),
        ("f()[|", "()["),
        ("__init__(|", "("),
        ('f("""|', ""),
        ("# ----|", ""),
        ("x.|", ""),
        ("f().|", ""),
        ("f(x,|", ""),
        ("else:|", ""),
        ("@|", ""),
        ("\u2192(|", "("),
        ("\ud800(|", "("),
        ("f(x|)", "x"),
    ],
)
def test_back_off_takes_punctuation_that_tokens_straddle(source: str, opening: str) -> None:
    check(source, opening=opening)


@pytest.mark.parametrize(
    ("source", "opening", "closing"),
    [
        (" " + "a" * 63 + "|", " " + "a" * 63, ""),
        (" " + "a" * 64 + "|", "", ""),
        ("a" * 65 + "|b", "", ""),
        ("a" * 500 + "|b", "", ""),
        ("a|" + "b" * 64, "a", "b" * 64),
        ("a|" + "b" * 65, "a", ""),
        ("x\n" + " " * 64 + "|", " " * 64, ""),
        ("x\n" + " " * 65 + "|", "", ""),
        ("x\n" + " " * 500 + "|", "", ""),
    ],
)
def test_back_off_leaves_text_that_is_too_long(source: str, opening: str, closing: str) -> None:
    check(source, opening=opening, closing=closing)


@given(CODE, CODE)
def test_back_off_loses_nothing_and_crosses_no_line_break(prefix: str, suffix: str) -> None:
    boundary = back_off(prefix, suffix)
    assert boundary.prefix + boundary.opening == prefix
    assert boundary.closing + boundary.suffix == suffix
    assert len(boundary.opening) <= 64
    assert len(boundary.closing) <= 64
    assert not set(boundary.opening + boundary.closing) & {"\n", "\r"}
    assert all(char == "_" or unicodedata.category(char)[0] in "LM" for char in boundary.closing)
    assert boundary.opening or not boundary.closing


@given(st.text("ab(. \n", max_size=9), st.text("ab_", max_size=20))
def test_back_off_keeps_its_prefix_while_a_word_is_typed(prefix: str, word: str) -> None:
    typed = prefix + " x"
    assert back_off(typed + word, "").prefix == back_off(typed, "").prefix


def bounded(*, opening: str, closing: str) -> Boundary:
    return Boundary(prefix="x =", opening=opening, closing=closing, suffix=")")


@pytest.mark.parametrize(
    ("text", "opening", "closing", "inserted"),
    [
        (" config", " conf", "", "ig"),
        (" conf", " conf", "", ""),
        (" con", " conf", "", None),
        ("conf", " conf", "", None),
        ("self", "sel", "f", ""),
        ("selected.self", "sel", "f", "ected.sel"),
        ("selected", "sel", "f", None),
        ("sel", "sel", "l", None),
        ("x\n", "", "", "x\n"),
    ],
)
def test_trimmed_cuts_both_sides_or_refuses(text: str, opening: str, closing: str, inserted: str | None) -> None:
    assert trimmed(text, bounded(opening=opening, closing=closing)) == inserted


@given(CODE, CODE, CODE)
def test_trimmed_returns_the_text_between(prefix: str, text: str, suffix: str) -> None:
    boundary = back_off(prefix, suffix)
    assert trimmed(boundary.opening + text + boundary.closing, boundary) == text
