"""Strings are taken out of a line as one expression for whole strings would do it, in one pass."""

from __future__ import annotations

import re

import pytest
from dgemma_engine.postprocess import truncation
from hypothesis import given
from hypothesis import strategies as st

from dgemma_lsp.postprocess import overlap

texts = st.text(alphabet="\"'`\\\na (", max_size=20)
WHOLE = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`(?:\\.|[^`\\])*`")
WITHIN_A_LINE = re.compile(r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\\n])*`")


class Counting:
    """An expression that counts what it reads."""

    num = 0

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern

    def match(self, text: str, at: int) -> re.Match[str] | None:
        found = self._pattern.match(text, at)
        Counting.num += found.end() - at + 1 if found else len(text) - at
        return found


@given(text=texts)
def test_what_is_left_is_what_one_expression_leaves(text: str) -> None:
    assert overlap._without_strings(text) == WHOLE.sub("", text)  # pyright: ignore[reportPrivateUsage]
    assert truncation._without_strings(text) == WITHIN_A_LINE.sub("", text)  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("module", [overlap, truncation])
@pytest.mark.parametrize("piece", ['"\\', '\\"', "'\"`", "'a\\\n", '"'])
def test_each_character_is_read_a_few_times_only(module: object, piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = {quote: Counting(pattern) for quote, pattern in module._INSIDE.items()}  # pyright: ignore
    monkeypatch.setattr(module, "_INSIDE", inside)
    Counting.num = 0
    text = piece * 2_000
    module._without_strings(text)  # pyright: ignore
    assert Counting.num <= 4 * len(text)
