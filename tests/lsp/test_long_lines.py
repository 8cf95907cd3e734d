"""Minified files and files of more than a megabyte: the text that is read and sent stays small."""

from __future__ import annotations

import pytest
from dgemma_engine.postprocess.cursor_context import CursorContext

from dgemma_lsp.context.chunks import around
from dgemma_lsp.documents.positions import LineIndex, PositionEncoding, num_units
from dgemma_lsp.engine_client.infill_client import ContextLimits, build_context
from dgemma_lsp.request import Request, Trigger, build_completions, completion_at
from tests.lsp.shaped_infill import shaped_infill

MINIFIED = "let naïve=[1,2];f(naïve,'😋');" * 40_000


def request(text: str, offset: int) -> Request:
    return Request(uri="file:///w/a.js", version=1, text=text, offset=offset, language="javascript")


@pytest.mark.parametrize("offset", [600_000, 600_001, 600_500, len(MINIFIED)])
def test_item_in_a_minified_line_repeats_little_of_it(offset: int):
    asked = request(MINIFIED, offset)
    (completion,) = build_completions(asked, shaped_infill(asked, "g(7)"))
    assert len(completion.lead) < 2_000
    assert completion.text == MINIFIED[completion.start : offset] + completion.inserted
    assert completion.inserted.startswith("g(7)")


def test_item_stays_where_it_begins_while_a_word_is_typed():
    starts = {completion_at(request(MINIFIED, offset), "x", 0).start for offset in range(600_100, 600_150)}
    assert len(starts) == 1


def test_item_in_a_line_of_usual_length_begins_where_the_line_does():
    text = "x = 1\n" + "y" * 1_500
    assert completion_at(request(text, len(text)), "x", 0).start == 6


@pytest.mark.parametrize("text", [MINIFIED, "a = 1\n" + MINIFIED, MINIFIED + "\nb = 2\n" + MINIFIED])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_engine_sees_as_much_of_long_lines_as_of_short_ones(text: str, share: float):
    context = build_context(request(text, int(len(text) * share)), ContextLimits())
    assert 12_000 <= len(context.prefix) <= 16_000
    assert 6_000 <= len(context.suffix) <= 8_000


def test_text_read_around_a_cursor_is_bounded():
    at = 600_000
    assert len(around(MINIFIED, at)) <= 16_000
    seen = CursorContext.of(MINIFIED[:at], MINIFIED[at:], "javascript")
    assert len(seen.before) + len(seen.rest) <= 100_000


@pytest.mark.parametrize("encoding", list(PositionEncoding))
@pytest.mark.parametrize("offset", [0, 1_023, 1_024, 1_025, 29 * 1_024, len(MINIFIED)])
def test_positions_in_a_long_line(encoding: PositionEncoding, offset: int):
    lines = LineIndex(MINIFIED)
    column = num_units(MINIFIED[:offset], encoding)
    assert lines.position(offset, encoding) == (0, column)
    assert lines.offset(0, column, encoding) == offset


def test_column_inside_a_pair_far_out_is_before_it():
    text = "a" * 1_024 + "😋" * 2_000
    lines = LineIndex(text)
    assert lines.offset(0, 1_024 + 2 * 1_500 + 1, PositionEncoding.UTF16) == 1_024 + 1_500
    assert lines.offset(0, 1_024 + 4 * 1_500 + 3, PositionEncoding.UTF8) == 1_024 + 1_500


def test_automatic_request_far_inside_a_minified_line_is_answered_like_another():
    asked = Request(
        uri="file:///w/a.js", version=1, text=MINIFIED, offset=600_000, language="javascript", trigger=Trigger.AUTOMATIC
    )
    assert len(build_completions(asked, shaped_infill(asked, "h()"))) == 1
