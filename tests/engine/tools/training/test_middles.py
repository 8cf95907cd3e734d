from __future__ import annotations

from random import Random

import pytest
from dgemma_engine.errors import TrainingError
from dgemma_engine.tools.corpus.middles import MiddleMix, SourceText, choose_hole
from hypothesis import given, settings
from hypothesis import strategies as st

SOURCE = '''import os


class Reader:
    """Reads."""

    def read(self, path, mode="r"):
        with open(path, mode) as file:
            text = file.read()
            print(f"é {len(text)} characters", "é", path)
        return text.strip()
'''


def only(kind: str) -> MiddleMix:
    return MiddleMix(**{name: float(name == kind) for name in ("line", "block", "syntax", "span")})


def middles(kind: str, text: str = SOURCE, draws: int = 400) -> set[str]:
    source, random = SourceText(text), Random(0)
    holes = (choose_hole(source, only(kind), random) for _ in range(draws))
    return {text[hole.start : hole.end] for hole in holes if hole is not None}


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet="ab =(:)\n\r\té\x0c", min_size=1), seed=st.integers(0, 1_000))
def test_hole_is_a_span_that_is_not_blank(text: str, seed: int) -> None:
    hole = choose_hole(SourceText(text), MiddleMix(), Random(seed))
    if hole is not None:
        assert 0 <= hole.start < hole.end <= len(text)
        assert text[hole.start : hole.end].strip()


def test_line_holes_end_with_their_line() -> None:
    found = middles("line")
    assert all("\n" not in middle for middle in found)
    assert {"return text.strip()", "        return text.strip()", "text.strip()"} <= found
    assert found & {"eturn text.strip()", "urn text.strip()", "ext.strip()", "trip()", "rip()", "ip()"}


def test_line_holes_leave_the_line_break_where_it_is() -> None:
    assert all("\r" not in middle and "\n" not in middle for middle in middles("line", SOURCE.replace("\n", "\r\n")))


def test_block_holes_span_one_to_eight_lines() -> None:
    lengths = {middle.count("\n") + 1 for middle in middles("block")}
    assert lengths == set(range(1, 9))


def test_syntax_holes_are_arguments_expressions_statements_and_bodies() -> None:
    found = middles("syntax")
    assert {"path, mode", "text.strip()", "return text.strip()", "import os"} <= found
    assert any(middle.startswith("with open") and middle.endswith("path)") for middle in found)


def test_syntax_holes_count_columns_in_characters_not_bytes() -> None:
    assert 'f"é {len(text)} characters", "é", path' in middles("syntax")
    assert '"é"' in middles("syntax")


def test_text_that_does_not_parse_has_no_syntax_holes() -> None:
    assert SourceText("def (:\n").nodes == []
    assert choose_hole(SourceText("def (:\n"), only("syntax"), Random(0)) is None


def test_form_feeds_end_no_line() -> None:
    assert middles("syntax", "a = 1\n\x0c\nbcd = efg\n") >= {"bcd = efg", "bcd", "efg"}


@pytest.mark.parametrize("shares", [{"line": 0.5}, {"line": -0.1, "span": 0.6}])
def test_shares_must_sum_to_one(shares: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match="must be shares that sum to 1"):
        MiddleMix(**shares)
