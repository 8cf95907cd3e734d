"""Strings are removed in one pass, with the result of one regular expression for whole strings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import pytest
from dgemma_engine.postprocess.brackets import STRINGS_IN_LINE, STRINGS_OVER_LINES, without_strings
from hypothesis import given
from hypothesis import strategies as st

texts = st.text(alphabet="\"'`\\\na (", max_size=20)
WHOLE = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`(?:\\.|[^`\\])*`")
WITHIN_A_LINE = re.compile(r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\\n])*`")


class Counting:
    """A regular expression that counts the characters that it reads."""

    num = 0

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern

    def match(self, text: str, at: int) -> re.Match[str] | None:
        found = self._pattern.match(text, at)
        Counting.num += found.end() - at + 1 if found else len(text) - at
        return found


@given(text=texts)
def test_result_equals_that_of_one_expression(text: str) -> None:
    assert without_strings(text) == WITHIN_A_LINE.sub("", text)
    assert without_strings(text, STRINGS_OVER_LINES) == WHOLE.sub("", text)


@pytest.mark.parametrize("inside", [STRINGS_IN_LINE, STRINGS_OVER_LINES])
@pytest.mark.parametrize("piece", ['"\\', '\\"', "'\"`", "'a\\\n", '"'])
def test_each_character_is_read_a_bounded_number_of_times(inside: Mapping[str, re.Pattern[str]], piece: str) -> None:
    Counting.num = 0
    text = piece * 2_000
    without_strings(text, cast("Any", {quote: Counting(pattern) for quote, pattern in inside.items()}))
    assert Counting.num <= 4 * len(text)
