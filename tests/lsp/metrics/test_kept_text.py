from __future__ import annotations

import pytest

from dgemma_lsp.metrics.kept_text import is_kept, num_kept


@pytest.mark.parametrize(
    ("inserted", "now", "expected"),
    [
        ("return x", "return x", 8),
        ("return x", "    return x  # yes", 8),
        ("return x", "", 0),
        ("return first", "return second", 7),
        ("foo(alpha, beta)", "foo(alpha, gamma, beta)", 16),
        ("abc", "a-b-c", 0),
        (")", ")", 1),
        ("", "anything", 0),
    ],
)
def test_num_kept(inserted: str, now: str, expected: int):
    assert num_kept(inserted, now) == expected


def test_kept_is_at_least_half():
    assert is_kept("abcdef", "abc")
    assert not is_kept("abcdefg", "abc")


def test_long_texts_are_counted_from_their_beginning():
    text = "".join(f"line {i}\n" for i in range(2_000))
    assert num_kept(text, text.replace("line 1\n", "line one\n", 1)) > 0.95 * len(text)
    assert num_kept("a" * 20_000, "b" * 20_000) == 0
