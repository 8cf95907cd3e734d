"""The tokens of a middle, turned into the text that may be shown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
from dgemma_engine.checkpoint.calibration import Calibration
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.infill.candidate import MiddleEnds, Proposal
from dgemma_engine.infill.options import DEFAULT
from dgemma_engine.infill.task import Hole, InfillTask
from dgemma_engine.protocol.messages import CandidateSource, Context, DocumentEdges, Extent
from dgemma_engine.tokenization.token_healing import back_off


@dataclass
class Letters:
    """A tokenizer whose tokens are characters; two of them are special."""

    special_ids: tuple[int, ...] = (1, 2)
    with_line_break: frozenset[int] = frozenset({10, 58})
    closing_line: frozenset[int] = frozenset({58})

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))

    def count(self, text: str) -> int:
        return len(text)

    def head(self, text: str, most: int) -> str:
        return text[:most]

    def text_of(self, token_id: int) -> str:
        return chr(token_id)


def task(document: str, **options: Any) -> InfillTask:
    prefix, _, suffix = document.partition("|")
    hole = Hole(
        boundary=replace(back_off(prefix, suffix), closing=""),
        prompt_ids=[0], parallel_ids=[], head_ids=(), end_ids=frozenset({2}), is_last=False, around_ids=[],
    )  # fmt: skip
    context = Context(document="a", prefix=prefix, suffix=suffix, **options)
    letters = cast("Any", Letters())
    form = InfillFormat.untrained()
    return InfillTask(
        context=context,
        hole=hole,
        form=form,
        options=DEFAULT,
        tokenizer=letters,
        spelling=letters,
        calibration=Calibration.default(),
    )


@pytest.mark.parametrize(
    ("document", "written", "expected"),
    [
        ("x = |\n", " compute()", "compute()"),
        ("self.con|\n", "config.load()", "fig.load()"),
        ("self.con|\n", "value", ""),
        ("x, |\n", " y\nz = 2", "y"),
        ("foo(|)\n", "(a, b)", "a, b"),
        ("con|fig)\n", "con", ""),
    ],
)
def test_text_of_a_line(document: str, written: str, expected: str) -> None:
    assert task(document).text([ord(character) for character in written]) == expected


def test_text_goes_on_from_earlier_canvases() -> None:
    assert task("x = |\n").text([ord("b")], before=[ord(" "), ord("a")]) == "ab"


@pytest.mark.parametrize(
    ("fill_token_id", "on_demand", "expected"),
    [(None, False, "a = 1"), (None, True, "a = 1"), (2, True, "a = 1"), (2, False, "a = 1\nb = 2")],
)
def test_block_ends_where_it_is_left(fill_token_id: int | None, on_demand: bool, expected: str) -> None:
    """Except in the suggestion of a checkpoint with a fill token, which ends middles itself."""
    block = task("def f():\n    |\n", extent=Extent.BLOCK, on_demand=on_demand)
    block = replace(block, form=replace(block.form, fill_token_id=fill_token_id))
    assert block.text([*map(ord, "    a = 1\nb = 2")]).strip() == expected


def test_line_breaks_end_a_line_only() -> None:
    assert task("|").ends() == MiddleEnds(behind=frozenset({2, 10}), last=frozenset({58}))
    assert task("|", extent=Extent.BLOCK).ends() == MiddleEnds(behind=frozenset({2}))


def test_text_before_the_line_break_of_a_last_token_is_kept() -> None:
    """On a canvas and left to right alike: the tokens up to the last one are the middle's."""
    assert task("if f(|\n").text([*map(ord, "(a):\n    b")]) == "a):"
    assert task("if f(|\n", extent=Extent.BLOCK).text([*map(ord, "(a):\n    b")]) == "a):\n    b"


def test_special_tokens_are_banned_but_those_that_end_the_middle() -> None:
    assert task("|").banned_ids() == [1]


def shapes(document: str, *texts: str, **options: Any) -> list[tuple[str, int]]:
    proposals = [Proposal(text=text, source=CandidateSource.SEED) for text in texts]
    return [(one.text, one.covered) for one in task(document, **options).shaped(proposals)]


def test_proposals_get_the_shape_that_is_shown_and_empty_ones_are_dropped() -> None:
    assert shapes("foo(|)\n", "a) + b(c", ")", "f(a") == [("a) + b(c", 0), ("f(a)", 0)]
    assert shapes("foo(|)\n", "a):") == [("a):", 1)]
    block = {"extent": Extent.BLOCK, "language": "python"}
    assert shapes("if x:\n\t|", "if y:\n    z()\n\nw()", **block) == [("if y:\n\t\tz()", 0)]


def limited(document: str, text: str, most: int, *, is_cut: bool = False) -> list[tuple[str, int, int, bool]]:
    found = [Proposal(text=text, source=CandidateSource.SEED, is_cut=is_cut)]
    shaped = task(document, max_middle_tokens=most, language="python").shaped(found)
    return [(one.text, one.covered, one.num_tokens, one.is_cut) for one in shaped]


@pytest.mark.parametrize(
    ("document", "text", "most", "expected"),
    [
        ("x = |\n", "alpha", 5, [("alpha", 0, 5, False)]),
        ("x = |\n", "alpha", 4, [("alph", 0, 4, True)]),
        # What stands on the line already is not added to it.
        ("foo(|)\n", "a):", 3, [("a):", 1, 3, False)]),
        ("foo(|)\n", "ab)", 2, [("ab)", 1, 2, False)]),
        ("foo(|)\n", "abcd)", 2, [("ab", 0, 2, True)]),
        # What the beginning opens is closed within the limit.
        ("x = |\n", "f(alpha)", 4, [("f(a)", 0, 4, True)]),
        ("x = |\n", "f(g(h(alpha", 11, [("f(g(h(al)))", 0, 11, True)]),
        ("x = |\n", "f(g(h(alpha", 9, [("f(g(h(", 0, 6, True)]),
        ("x = |\n", " alpha", 1, []),
    ],
)
def test_shape_keeps_the_limit_of_tokens(
    document: str, text: str, most: int, expected: list[tuple[str, int, int, bool]]
) -> None:
    assert limited(document, text, most) == expected


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [
        ("a = 1\nbeta = 2", 9, "a = 1"),
        ("a = 1\nbeta = 2", 5, "a = 1"),
        ("a = 1\nb = 2\nc = 3", 11, "a = 1\nb = 2"),
        ("a = 1\nbeta = 2", 4, "a = "),
        ("alpha = 1", 5, "alpha"),
    ],
)
def test_whole_lines_are_kept_within_the_limit(text: str, most: int, expected: str) -> None:
    found = [Proposal(text=text, source=CandidateSource.SEED)]
    (shaped,) = task("|\n", extent=Extent.BLOCK, max_middle_tokens=most, language="python").shaped(found)
    assert (shaped.text.rstrip(), shaped.is_cut) == (expected.rstrip(), True)


def test_text_whose_source_was_cut_short_stays_cut() -> None:
    assert limited("x = |\n", "alpha", 5, is_cut=True) == [("alpha", 0, 5, True)]


def test_a_fill_keeps_its_paragraphs_and_replaces_nothing() -> None:
    block = {"extent": Extent.BLOCK, "language": "python"}
    assert shapes("def f():\n    |\n", "a\n\n    b", **block) == [("a", 0)]
    assert shapes("def f():\n    |\n", "a\n\n    b", **block, on_demand=True) == [("a\n\n    b", 0)]
    assert shapes("foo(|)\n", "a)", on_demand=True) == [("a", 0)]


def test_the_shape_follows_the_document_beyond_prefix_and_suffix_and_not_other_cells() -> None:
    def line(document: str, edges: DocumentEdges) -> str:
        ((text, _),) = shapes(document, "f(a)}", language="javascript", edges=edges)
        return text

    assert line("x = |\n", DocumentEdges()) == "f(a)"
    assert line("x = |\n", DocumentEdges(above="{\n")) == "f(a)}"
    assert line("x = |\n", DocumentEdges(above="{\n", below="}\n")) == "f(a)"
    assert line("x = |\n", DocumentEdges(above="{\n", below="}\n", is_cut=True)) == "f(a)}"
    assert line("{\nx = |\n", DocumentEdges()) == "f(a)}"
    assert line("{\nx = |\n", DocumentEdges(num_before=2)) == "f(a)"
    assert line("{\nx = |\n}", DocumentEdges()) == "f(a)"
    assert line("{\nx = |\n}", DocumentEdges(num_after=1)) == "f(a)}"


@pytest.mark.parametrize(
    ("document", "is_blank"), [("a\n  |", True), ("|", True), ("a\n |  \nb", True), ("a = |\n", False), ("|)\n", False)]
)
def test_blank_line_is_one_without_text_on_either_side(document: str, is_blank: bool) -> None:
    assert task(document).is_blank_line is is_blank
    assert not task(document, extent=Extent.BLOCK).is_blank_line
