from __future__ import annotations

import re
from bisect import bisect_right

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgemma_lsp.documents.positions import LineIndex, PositionEncoding, num_units

UTF8, UTF16, UTF32 = PositionEncoding.UTF8, PositionEncoding.UTF16, PositionEncoding.UTF32
CODECS = {UTF8: "utf-8", UTF16: "utf-16-le", UTF32: "utf-32-le"}
UNIT_BYTES = {UTF8: 1, UTF16: 2, UTF32: 4}

characters = st.sampled_from(["a", "é", "e\u0301", "漢", "😋", "\t", "\n", "\r\n", "\r", "\x0c", "\u2028", "\x85"])
texts = st.lists(characters, max_size=30).map("".join)
encodings = st.sampled_from(list(PositionEncoding))


@given(texts, encodings, st.data())
def test_offset_round_trips_through_a_position(text: str, encoding: PositionEncoding, data: st.DataObject):
    offset = data.draw(st.integers(0, len(text)))
    lines = LineIndex(text)
    back = lines.offset(*lines.position(offset, encoding), encoding)
    inside_crlf = text[offset - 1 : offset + 1] == "\r\n" if offset else False
    assert back == (offset - 1 if inside_crlf else offset)


@given(texts, encodings, st.integers(0, 40), st.integers(0, 80))
def test_any_position_is_clamped_into_its_line(text: str, encoding: PositionEncoding, line: int, column: int):
    lines = LineIndex(text)
    offset = lines.offset(line, column, encoding)
    if line >= lines.num_lines:
        assert offset == len(text)
    else:
        start, end = lines.span(line)
        assert start <= offset <= end
        assert num_units(text[start:offset], encoding) <= column


@given(texts, encodings)
def test_units_are_what_the_codec_makes(text: str, encoding: PositionEncoding):
    assert num_units(text, encoding) == len(text.encode(CODECS[encoding])) // UNIT_BYTES[encoding]


@given(texts)
def test_lines_end_where_the_protocol_says(text: str):
    lines = LineIndex(text)
    found = [text[slice(*lines.span(line))] for line in range(lines.num_lines)]
    assert found == text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


@pytest.mark.parametrize(
    ("text", "line", "column", "encoding", "expected"),
    [
        ("a😋b", 0, 3, UTF16, 2),
        ("a😋b", 0, 2, UTF16, 1),  # inside the surrogate pair: before it
        ("a😋b", 0, 3, UTF8, 1),  # inside the four bytes
        ("a😋b", 0, 5, UTF8, 2),
        ("a😋b", 0, 2, UTF32, 2),
        ("ab\r\ncd", 0, 99, UTF16, 2),
        ("ab\r\ncd", 0, 3, UTF16, 2),  # between \r and \n
        ("ab", 0, 99, UTF16, 2),
        ("ab\n", 1, 0, UTF16, 3),
        ("ab\n", 7, 3, UTF16, 3),
        ("", 0, 0, UTF16, 0),
        ("a\x0cb\nc", 1, 0, UTF16, 4),
    ],
)
def test_offset(text: str, line: int, column: int, encoding: PositionEncoding, expected: int):
    assert LineIndex(text).offset(line, column, encoding) == expected


def test_lone_surrogate_counts_as_one_utf16_unit():
    assert num_units("a\ud83d", UTF16) == 2


def reference_starts(text: str) -> list[int]:
    """Returns where lines start, found in one pass over the whole text."""
    return [0, *(match.end() for match in re.finditer(r"\r\n|\r|\n", text))]


edits = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), texts), max_size=8)


@given(texts, edits, st.integers(1, 5), encodings)
def test_edited_index_equals_a_new_one_whatever_the_blocks(
    text: str, edits: list[tuple[int, int, str]], block_chars: int, encoding: PositionEncoding
):
    lines = LineIndex(text, block_chars=block_chars)
    for one, other, put in edits:
        start, end = sorted((min(one, len(text)), min(other, len(text))))
        text, lines = text[:start] + put + text[end:], lines.edited(start, end, put)
    starts = reference_starts(text)
    assert (lines.text, len(lines), lines.num_lines) == (text, len(text), len(starts))
    assert [lines.span(line)[0] for line in range(lines.num_lines)] == starts
    whole = LineIndex(text)
    for offset in range(len(text) + 1):
        assert lines.line_at(offset) == bisect_right(starts, offset) - 1
        assert lines.position(offset, encoding) == whole.position(offset, encoding)
    for line in range(len(starts) + 1):
        for column in range(8):
            assert lines.offset(line, column, encoding) == whole.offset(line, column, encoding)


def test_typing_in_a_long_text_makes_no_blocks_of_one_character():
    lines = LineIndex("x" * 1_000, block_chars=100)
    for key in range(2_000):
        lines = lines.edited(key % 7, key % 7, "y")
    assert lines.text.count("y") == 2_000
    assert lines.num_blocks <= 2 * 3_000 // 100
