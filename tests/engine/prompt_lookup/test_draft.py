"""Draft tokens by prompt lookup, on literal ids: which earlier place is used, and how many tokens of it."""

from __future__ import annotations

import pytest
from dgemma_engine.prompt_lookup.draft import PromptLookup
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "decided", "expected"),
    [
        # A match of three tokens beats one of two or one, at any distance.
        ([1, 2, 3, 4, 9, 2, 3, 5, 3, 6], [1, 2, 3], [4, 9, 2]),
        ([8, 2, 3, 4, 9, 3, 5], [7, 2, 3], [4, 9, 3]),
        # Of two equal matches, the last one.
        ([1, 2, 3, 4, 1, 2, 3, 5, 6], [1, 2, 3], [5, 6, 1]),
        ([3, 4, 0, 3, 5, 0], [3], [5, 0, 3]),
        # A match may begin in the text and end in the tokens decided so far.
        ([1, 2], [3, 9, 1, 2, 3], [9, 1, 2]),
        # Fewer tokens than asked for: the match ends one token before the end.
        ([5, 5], [], [5]),
        ([1, 2, 7], [1, 2, 7, 1, 2, 7], [1, 2, 7]),
        # No match, or no tokens at all.
        ([1, 2, 3], [9], []),
        ([1, 2, 3], [], []),
        ([4], [], []),
        ([], [4], []),
        ([], [], []),
    ],
)
def test_guess_is_what_followed_the_longest_and_last_place(
    text: list[int], decided: list[int], expected: list[int]
) -> None:
    assert PromptLookup(text, most=3).after(decided) == expected


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), max_size=6), st.integers(1, 8))
def test_guess_equals_that_of_a_plain_search(text: list[int], decided: list[int], most: int) -> None:
    """The plain search ranks places by the number of matching tokens, at most three, and then by lateness."""
    whole = [*text, *decided]

    def num_alike(place: int) -> int:
        sizes = (size for size in (3, 2, 1) if size <= place and whole[place - size : place] == whole[-size:])
        return next(sizes, 0)

    places = [(num_alike(place), place) for place in range(1, len(whole)) if num_alike(place)]
    expected = whole[max(places)[1] :][:most] if places else []
    assert PromptLookup(text, most=most).after(decided) == expected
