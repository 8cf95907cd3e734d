"""The tokens of a middle, turned into the text that may be shown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import pytest
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.infill.options import DEFAULT
from dgemma_engine.infill.task import InfillTask
from dgemma_engine.postprocess.clean_candidate import clean_candidate
from dgemma_engine.prompting.builder import Hole
from dgemma_engine.protocol.messages import Context, Extent
from dgemma_engine.tokenization.token_healing import back_off


@dataclass
class Letters:
    """A tokenizer whose tokens are characters; two of them are special."""

    special_ids: tuple[int, ...] = (1, 2)
    with_line_break: frozenset[int] = frozenset({10})

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))

    def text_of(self, token_id: int) -> str:
        return chr(token_id)


def task(document: str, **options: Any) -> InfillTask:
    prefix, _, suffix = document.partition("|")
    hole = Hole(
        boundary=back_off(prefix, suffix).with_whole_suffix(),
        prompt_ids=[0], head_ids=(), judged_suffix_ids=(), end_ids=frozenset({2}), is_last=False,
    )  # fmt: skip
    context = Context(document="a", prefix=prefix, suffix=suffix, **options)
    letters = cast("Any", Letters())
    form = InfillFormat.untrained()
    clean = partial(clean_candidate, prefix=prefix, suffix=suffix, one_line=context.extent is Extent.LINE)
    return InfillTask(
        context=context, hole=hole, form=form, options=DEFAULT, tokenizer=letters, spelling=letters, clean=clean
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
    """Except the suggestion of a checkpoint that ends middles itself."""
    block = task("def f():\n    |\n", extent=Extent.BLOCK, on_demand=on_demand)
    block = replace(block, form=replace(block.form, fill_token_id=fill_token_id))
    assert block.text([*map(ord, "    a = 1\nb = 2")]).strip() == expected


def test_line_breaks_end_a_line_only() -> None:
    assert task("|").end_ids() == {2, 10}
    assert task("|", extent=Extent.BLOCK).end_ids() == {2}


def test_special_tokens_are_banned_but_those_that_end_the_middle() -> None:
    assert task("|").banned_ids() == [1]
