"""Holes that training draws in a text: at places where a completion is useful, several with one end."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from dgemma_engine.tools.adaptation.holes import KINDS, choose_holes

TEXT = (
    "import os\n\n\ndef area(width, height):   \n    size = (width, height)\n"
    "    return size[0] * size[1]\n\n\nprint(area(2, 3))\n"
)


@pytest.mark.parametrize("most_at_end", [1, 3])
@pytest.mark.parametrize("seed", range(20))
def test_holes_hold_text_and_keep_their_bounds(seed: int, most_at_end: int) -> None:
    holes = choose_holes(TEXT, Random(seed), count=9, max_characters=60, most_at_end=most_at_end)
    assert 1 <= len(holes) <= 9
    for hole in holes:
        assert TEXT[hole.start : hole.end].strip() and 0 < hole.end - hole.start <= 60
        assert hole.start > TEXT.index("\n"), "no hole may be in the first line, which has no text before it"
        if hole.kind in ("line", "rest"):
            assert TEXT[hole.end] == "\n" and "\n" not in TEXT[hole.start : hole.end]


def test_holes_that_share_an_end_differ_in_their_start() -> None:
    holes = choose_holes(TEXT, Random(3), count=3, max_characters=200, most_at_end=3)
    assert len({hole.start for hole in holes}) == len(holes) == 3
    assert {hole.end for hole in holes} == {holes[0].end}


def test_all_kinds_are_drawn_and_the_same_seed_draws_the_same() -> None:
    drawn = [choose_holes(TEXT * 3, Random(seed), count=12, max_characters=200, most_at_end=3) for seed in range(30)]
    kinds = Counter(hole.kind for holes in drawn for hole in holes)
    assert set(kinds) == set(KINDS)
    assert kinds["line"] + kinds["rest"] > kinds["random"]
    again = [choose_holes(TEXT * 3, Random(seed), count=12, max_characters=200, most_at_end=3) for seed in range(30)]
    assert drawn == again


@pytest.mark.parametrize("text", ["", "one line", "\n\n\n", "a\n \n"])
def test_text_without_room_has_no_holes(text: str) -> None:
    assert choose_holes(text, Random(0), count=5, max_characters=60, most_at_end=3) == []
