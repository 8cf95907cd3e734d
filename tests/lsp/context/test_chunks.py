from __future__ import annotations

import pytest

from dgemma_lsp.context.chunks import around, best_chunk, chunks_of, similarity, words_of
from tests.lsp.cursor import split_cursor


def numbered(count: int) -> str:
    return "\n".join(f"line{n}" for n in range(count))


@pytest.mark.parametrize(
    ("num_lines", "starts"), [(1, [0]), (60, [0]), (61, [0, 1]), (81, [0, 20, 21]), (120, [0, 20, 40, 60])]
)
def test_windows_cover_a_text_in_steps(num_lines: int, starts: list[int]) -> None:
    windows = list(chunks_of(numbered(num_lines)))
    assert [window.start_line for window in windows] == starts
    assert all(len(window.text.split("\n")) <= 60 for window in windows)
    assert windows[-1].text.endswith(f"line{num_lines - 1}")


@pytest.mark.parametrize("text", ["", "\n" * 100, "x = 1\n", "word" * 2_000])
def test_text_without_words_or_with_long_lines_has_no_windows(text: str) -> None:
    assert list(chunks_of(text)) == []


def test_lines_after_the_first_8000_are_left_out() -> None:
    assert max(window.start_line for window in chunks_of(numbered(20_000))) == 8_000 - 60


@pytest.mark.parametrize(
    ("marked", "expected"),
    [("|", ""), ("a|b\n", "ab\n"), ("a\n|b\nc", "a\nb\nc"), ("\n\n|", "\n\n")],
)
def test_around_a_short_text_is_all_of_it(marked: str, expected: str) -> None:
    assert around(*split_cursor(marked)) == expected


def test_around_is_thirty_lines_on_each_side() -> None:
    text = numbered(200)
    lines = around(text, text.index("line100")).split("\n")
    assert (lines[0], lines[-1], len(lines)) == ("line70", "line130", 61)


def test_similarity_is_the_share_of_words_in_common() -> None:
    assert similarity(words_of("one two three"), words_of("two three four")) == 0.5
    assert similarity(words_of(""), words_of("")) == 0.0


def test_best_window_shares_most_words() -> None:
    windows = list(chunks_of("alpha\n" + "other\n" * 100 + "alpha beta"))
    best = best_chunk(windows, words_of("alpha beta gamma"), most_similar=1)
    assert best is not None
    assert (best[0], best[1].text.endswith("alpha beta")) == (0.5, True)


def test_best_window_is_the_first_of_equals() -> None:
    windows = list(chunks_of("alpha beta\n" + "other\n" * 100 + "alpha beta"))
    best = best_chunk(windows, words_of("alpha beta gamma"), most_similar=1)
    assert best is not None
    assert best[1].start_line == 0


def test_window_that_repeats_the_surroundings_is_left_out_with_what_overlaps_it() -> None:
    text = "alpha beta gamma\n" + "alpha\n" * 40 + "delta alpha\n" * 100
    windows = list(chunks_of(text))
    best = best_chunk(windows, words_of("alpha beta gamma"), most_similar=0.5)
    assert best is not None
    assert best[1].start_line == 60
    assert best_chunk(windows, words_of("alpha beta gamma"), most_similar=0) is None


def test_nothing_in_common_is_no_window() -> None:
    assert best_chunk(list(chunks_of("alpha")), words_of("beta"), most_similar=1) is None
