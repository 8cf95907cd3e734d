"""A canvas built from literals, and middles read out of slots."""

from __future__ import annotations

import pytest
import torch
from dgemma_engine import canvas as canvases
from dgemma_engine.middle import cut_to_line, drop_suffix_copy
from dgemma_engine.policies import UniformNoise

FILL, MORE, EOS = 7, 8, 1


def build(slot_size: int, head_ids: list[int]) -> canvases.Canvas:
    return canvases.build(slot_size, head_ids, UniformNoise(vocab_size=50), torch.Generator().manual_seed(0))


def test_build_clamps_the_suffix_head_behind_the_slot() -> None:
    canvas = build(5, [31, 32])
    assert canvas.ids_BL.shape == (1, 7)
    assert canvas.ids_BL[0, 5:].tolist() == [31, 32]
    assert canvas.free_BL[0].tolist() == [True] * 5 + [False] * 2


def test_build_without_suffix_is_all_free() -> None:
    assert build(4, []).free_BL.all()


def test_build_needs_a_free_position() -> None:
    with pytest.raises(ValueError, match="slot_size=0 must be at least 1"):
        build(0, [3])


def test_replace_writes_given_tokens_back() -> None:
    canvas = build(2, [31, 32])
    canvas.replace(torch.tensor([[10, 11, 12, 13]]))
    assert canvas.ids_BL[0].tolist() == [10, 11, 31, 32]


@pytest.mark.parametrize(
    ("slot", "ends", "expected", "ended"),
    [
        ([20, 21, FILL, FILL], {FILL}, [20, 21], True),
        ([FILL, 20, 21, 22], {FILL}, [], True),
        ([20, 21, EOS, FILL], {FILL, EOS}, [20, 21], True),
        ([20, 21, 22, MORE], {FILL}, [20, 21, 22], False),
        ([20, 21, 22, 23], {FILL}, [20, 21, 22, 23], False),
        ([20, 21, 22, 23], set(), [20, 21, 22, 23], True),
    ],
)
def test_read(slot: list[int], ends: set[int], expected: list[int], ended: bool) -> None:
    middle = canvases.read(slot, frozenset(ends), MORE)
    assert (middle.ids, middle.ended) == (expected, ended)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a + b\nreturn", "a + b"), ("a + b", "a + b"), ("", ""), ("\nx", ""), ("a\r\nb", "a"), ("a\rb", "a")],
)
def test_cut_to_line(text: str, expected: str) -> None:
    assert cut_to_line(text) == expected


@pytest.mark.parametrize(
    ("text", "suffix", "expected"),
    [
        ("x + 1\n    return y\n", "\n    return y\n\nprint(z)", "x + 1"),
        ("x + 1\n    retu", "\n    return y\n", "x + 1"),
        ("x + 1)", ")\nfoo", "x + 1)"),
        ("x + 1", "", "x + 1"),
        ("total\ndone()\nmore()", "\ndone()\n", "total"),
        ("total\ndone()\nmore()", "\ndone()", "total"),
    ],
)
def test_drop_suffix_copy(text: str, suffix: str, expected: str) -> None:
    assert drop_suffix_copy(text, suffix) == expected
