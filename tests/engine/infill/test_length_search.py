"""The search for a length: grid, prior and score, on numbers."""

from __future__ import annotations

import math

import pytest
from dgemma_engine.infill.length_search import LengthPrior, best_lengths, grid, surroundings_prior
from dgemma_engine.protocol.messages import Extent


def count_words(text: str) -> int:
    return len(text.split())


def prior_of(prefix: str, suffix: str, extent: Extent = Extent.LINE) -> LengthPrior:
    return surroundings_prior((1, 2, 4, 8, 16), prefix, suffix, extent=extent, count_tokens=count_words)


def test_grid_keeps_to_the_room_and_to_the_limit_of_its_extent() -> None:
    assert grid(Extent.LINE, 12) == (1, 2, 3, 4, 6, 8, 12)
    assert max(grid(Extent.LINE, 500)) == 32
    assert max(grid(Extent.BLOCK, 500)) == 128
    assert grid(Extent.BLOCK, 0) == (1,)


def test_prior_is_a_distribution() -> None:
    for prefix, suffix in (("", ""), ("a b c\n" * 30, "x\ny z\n"), ("one line only", "\n")):
        prior = prior_of(prefix, suffix)
        assert sum(math.exp(value) for value in prior.log_probs) == pytest.approx(1)


def test_prior_without_lines_is_flat() -> None:
    assert len(set(prior_of("", "").log_probs)) == 1


def test_prior_peaks_at_the_length_of_the_lines_around() -> None:
    prior = prior_of("a b c d e f g h\n" * 20, "\n" + "a b c d e f g h\n" * 5)
    assert max(prior.lengths, key=prior.of) == 8


def test_prior_counts_what_is_typed_and_what_is_covered() -> None:
    prior = prior_of("a b c d e f g h\n" * 20 + "a b ", "g h\n" + "x\n")
    assert max(prior.lengths, key=prior.of) == 4


def test_prior_of_a_block_reaches_over_several_lines() -> None:
    lines = "a b c d\n" * 20
    assert prior_of(lines, "", Extent.BLOCK).of(16) > prior_of(lines, "", Extent.LINE).of(16)


FLAT = LengthPrior(lengths=(2, 4, 8), log_probs=(math.log(1 / 3),) * 3)
RISING = {2: [-1.0, -1.2], 4: [-0.7, -0.7], 8: [-0.5, -0.7]}


def test_best_lengths_are_the_surest_ones() -> None:
    assert best_lengths(RISING, FLAT, bias=lambda _: 0.0, prior_weight=1.0, count=2) == [8, 4]


def test_bias_is_subtracted() -> None:
    bias = {2: -1.3, 4: -0.7, 8: -0.4}
    assert best_lengths(RISING, FLAT, bias=bias.__getitem__, prior_weight=1.0, count=3) == [2, 4, 8]


def test_prior_weight_scales_the_prior() -> None:
    prior = LengthPrior(lengths=(2, 4, 8), log_probs=(math.log(0.8), math.log(0.1), math.log(0.1)))
    assert best_lengths(RISING, prior, bias=lambda _: 0.0, prior_weight=1.0, count=1) == [2]
    assert best_lengths(RISING, prior, bias=lambda _: 0.0, prior_weight=0.0, count=1) == [8]
