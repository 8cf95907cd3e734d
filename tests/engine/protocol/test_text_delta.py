from __future__ import annotations

import random

import pytest
from dgemma_engine.protocol.text_delta import apply_delta, delta, length_of
from hypothesis import given
from hypothesis import strategies as st

LINES = [f"value_{number} = compute(value_{number - 1}, {number})\n" for number in range(400)]


def sent(pieces: list[str | tuple[int, int]]) -> int:
    """Returns the number of characters of new text that are sent."""
    return sum(len(piece) for piece in pieces if isinstance(piece, str))


@given(st.text("ab\n", max_size=300), st.text("ab\n", max_size=300))
def test_pieces_make_the_text(base: str, new: str) -> None:
    pieces = delta(base, new)
    assert apply_delta(base, pieces) == new
    assert length_of(pieces) == len(new)


@given(st.randoms(use_true_random=False), st.integers(0, 8))
def test_pieces_make_a_text_whose_blocks_have_moved(source: random.Random, num_moves: int) -> None:
    base = "".join(LINES)
    lines = [*LINES]
    for _ in range(num_moves):
        start, to = source.randrange(len(lines)), source.randrange(len(lines))
        lines[to:to] = lines[start : start + source.randrange(40)]
    new = "".join(lines)[source.randrange(200) :]
    assert apply_delta(base, delta(base, new)) == new


def test_typed_key_is_sent_alone() -> None:
    base = "".join(LINES)
    middle = len(base) // 2
    assert sent(delta(base, f"{base[:middle]}x{base[middle:]}")) == 1


def test_moved_window_sends_its_new_text_only() -> None:
    text = "".join(LINES)
    assert sent(delta(text[:10_000], text[4_000:10_500])) == 500


def test_moved_text_is_not_sent() -> None:
    first, second, third = "".join(LINES[:50]), "".join(LINES[100:150]), "".join(LINES[200:250])
    assert sent(delta(first + second + third, third + "#" + first + second)) < 40


@pytest.mark.parametrize("piece", [(-1, 1), (0, 4), (3, 1), (0, -1)])
def test_piece_outside_of_the_earlier_text_is_refused(piece: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"piece {piece[0]}, {piece[1]} must be within the 3 characters"):
        apply_delta("abc", [piece])


def test_delta_sends_only_the_typed_keys_and_a_change_at_the_end() -> None:
    base = "".join(LINES) + '"deadline":4998.25}'
    middle = len(base) // 2 + 5
    for new in (f"{base[:middle]}abc{base[middle:]}", base[:middle] + base[middle + 3 :]):
        new = new.replace("4998.25", "4997.5")
        pieces = delta(base, new)
        assert apply_delta(base, pieces) == new
        assert sent(pieces) <= 3 + len("98.25}")
