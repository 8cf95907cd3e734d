from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from dgemma_engine.tools.tuning.comparison import LEVEL, Comparison
from dgemma_engine.tools.tuning.hole_results import HoleResult


def results(similarities: Sequence[float], *, per_file: int = 4) -> list[HoleResult]:
    return [
        HoleResult(
            hole=str(number), kind="rest", file=number // per_file, exact=value == 1, similarity=value, shown=True
        )
        for number, value in enumerate(similarities)
    ]


def compare(before: Sequence[float], after: Sequence[float], *, per_file: int = 4) -> Comparison:
    return Comparison.of(results(before, per_file=per_file), results(after, per_file=per_file), seed=0)


def test_no_difference_is_not_significant() -> None:
    same = compare([0.5] * 40, [0.5] * 40)
    assert same.p_value == 1.0 and not same.is_better


def test_gain_in_every_file_has_the_probability_of_equal_signs() -> None:
    better = compare([0.5] * 32, [1.0] * 32)
    assert better.p_value == 1 / 2**8 and better.is_better
    assert (better.num_exact_before, better.num_exact_after) == (0, 32)
    assert compare([1.0] * 32, [0.5] * 32).p_value == 1.0


def test_gain_without_more_exact_holes_does_not_count() -> None:
    assert compare([0.5] * 32, [0.9] * 32).p_value < LEVEL
    assert not compare([0.5] * 32, [0.9] * 32).is_better


def test_many_holes_of_one_file_count_once() -> None:
    """Forty improved holes would be significant if they were not all of one file."""
    assert compare([0.5] * 40, [1.0] * 40, per_file=40).p_value == 0.5


def test_many_files_are_compared_by_resamples() -> None:
    before = np.random.default_rng(0).random(240)
    chance = compare(list(before), list(np.random.default_rng(1).permutation(before)))
    assert chance.p_value > LEVEL
    gain = compare(list(before), list(np.minimum(before + 0.2, 1.0)))
    assert 0 < gain.p_value < 0.001
    assert gain == compare(list(before), list(np.minimum(before + 0.2, 1.0)))


@pytest.mark.parametrize("per_file", [30, 4])
def test_false_positive_rate_is_near_the_significance_level(per_file: int) -> None:
    generator = np.random.default_rng(3)
    found = [
        compare(list(generator.random(120)), list(generator.random(120)), per_file=per_file).p_value < LEVEL
        for _ in range(120)
    ]
    assert sum(found) <= 14, "5 % of 120 is 6; 14 or more occur with about 1 in 500 seeds"


def test_results_of_other_holes_are_refused() -> None:
    with pytest.raises(AssertionError, match="paired"):
        Comparison.of(results([0.5] * 4), results([0.5] * 5), seed=0)
