"""A known bias is recovered from confidences with easy and hard holes, peaks at the truth, and noise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from dgemma_engine.tools.calibration.length_bias import (
    LengthTrial,
    choose_prior_weight,
    fit_bias,
    fit_lengths,
    hit_rate,
)

GRID = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
FLAT_PRIOR = (math.log(1 / len(GRID)),) * len(GRID)


def planted(length: int) -> float:
    """A bias that is high for short middles and less so for long ones; as steep as the peak at the truth is high."""
    return 1.5 * math.exp(-length / 3) + 0.3 * math.log(length) - 2.0


def trial(
    number: int, generator: np.random.Generator, *, peak: float, noise: float, log_prior: tuple[float, ...] = FLAT_PRIOR
) -> LengthTrial:
    """One hole: its level falls with its true length, and confidence peaks at the truth and one step beside it."""
    true_idx = int(generator.integers(len(GRID)))
    level = 2.0 - 0.4 * true_idx + generator.normal()
    peaks = [peak * max(0.0, 1 - abs(index - true_idx) / 2) for index in range(len(GRID))]
    confidences = [
        level + planted(length) + height + noise * generator.normal()
        for length, height in zip(GRID, peaks, strict=True)
    ]
    return LengthTrial(
        hole=str(number), true_length=GRID[true_idx], lengths=GRID, confidences=tuple(confidences), log_prior=log_prior
    )


def trials(num: int, *, peak: float = 0.8, noise: float = 0.2, seed: int = 0) -> list[LengthTrial]:
    generator = np.random.default_rng(seed)
    return [trial(number, generator, peak=peak, noise=noise) for number in range(num)]


def error(curve: tuple[tuple[int, float], ...]) -> float:
    """Returns the largest distance from the true bias, which is determined up to a constant."""
    wanted = np.array([planted(length) for length, _ in curve])
    return float(np.abs(np.array([bias for _, bias in curve]) - (wanted - wanted.mean())).max())


def test_known_bias_is_recovered() -> None:
    curve = fit_bias(trials(600))
    assert [length for length, _ in curve] == list(GRID)
    assert error(curve) < 0.05
    assert sum(bias for _, bias in curve) == pytest.approx(0.0, abs=1e-9)


def test_without_noise_the_bias_is_recovered_exactly() -> None:
    assert error(fit_bias(trials(60, noise=0.0), min_holes=5)) < 1e-9


def test_flanks_of_the_peak_are_left_out() -> None:
    """With the flanks included, lengths that are often next to the truth would get too much bias."""
    near = [replace(each, true_length=1 if index % 3 else 32) for index, each in enumerate(trials(300, peak=0.0))]
    peaked = [
        replace(
            each,
            confidences=tuple(
                sure + 1.0 * (each.steps_from_truth(length) <= 1)
                for length, sure in zip(each.lengths, each.confidences, strict=True)
            ),
        )
        for each in near
    ]
    assert error(fit_bias(peaked)) < 0.1
    assert error(fit_bias(peaked, spared_steps=0)) > 0.3


def test_holes_with_grids_of_their_own_give_one_curve() -> None:
    """Half of the holes were tried up to 8 tokens only, and those are harder: a mean per length would show a jump."""
    mixed = [
        each
        if index % 2
        else replace(
            each,
            true_length=min(8, each.true_length),
            lengths=GRID[:6],
            confidences=tuple(sure - 3.0 for sure in each.confidences[:6]),
            log_prior=FLAT_PRIOR[:6],
        )
        for index, each in enumerate(trials(800, peak=0.0))
    ]
    assert error(fit_bias(mixed)) < 0.06


def test_length_with_few_holes_gets_no_point() -> None:
    few = [
        replace(each, lengths=GRID[:-1], confidences=each.confidences[:-1], log_prior=FLAT_PRIOR[:-1])
        for each in trials(100, peak=0.0)
    ]
    curve = fit_bias([*few, *trials(5, peak=0.0, seed=1)])
    assert [length for length, _ in curve] == list(GRID[:-1])


@pytest.mark.parametrize(
    ("true_length", "length", "steps"),
    [(4, 4, 0), (5, 6, 0), (5, 4, 1), (7, 6, 1), (7, 8, 0), (100, 32, 0), (100, 16, 2), (1, 3, 2)],
)
def test_steps_from_truth_count_on_the_grid(true_length: int, length: int, steps: int) -> None:
    each = replace(trials(1)[0], true_length=true_length)
    assert each.steps_from_truth(length) == steps


def test_bias_correction_finds_the_true_length() -> None:
    result = fit_lengths(trials(800, peak=0.2, noise=0.02), generator=np.random.default_rng(0))
    assert result.raw_hit_rate < 0.7
    assert dict(result.hit_rates)[result.prior_weight] > 0.95
    assert result.num_judged == 400
    assert error(result.bias) < 0.05


def with_prior(each: LengthTrial, knowledge: float) -> LengthTrial:
    """Adds a prior that is `knowledge` nats higher at the true length than elsewhere."""
    log_prior = [knowledge * (length == each.true_length) for length in GRID]
    total = math.log(sum(map(math.exp, log_prior)))
    return replace(each, log_prior=tuple(value - total for value in log_prior))


def test_useful_prior_gets_weight_and_a_misleading_one_none() -> None:
    noisy = trials(400, peak=0.2, noise=0.6)
    bias = fit_bias(noisy)
    useful, rates = choose_prior_weight([with_prior(each, 0.8) for each in noisy], bias)
    assert useful >= 0.5
    assert dict(rates)[useful] > dict(rates)[0.0] + 0.2
    misleading, _ = choose_prior_weight([with_prior(each, -3.0) for each in noisy], bias)
    assert misleading == 0.0


def test_of_equal_weights_the_smallest_is_taken() -> None:
    weight, rates = choose_prior_weight(trials(20), (), prior_weights=(2.0, 0.5, 1.0))
    assert [each for each, _ in rates] == [0.5, 1.0, 2.0]
    assert len({rate for _, rate in rates}) == 1
    assert weight == 0.5


def test_prior_weight_is_judged_on_holes_that_the_curve_was_not_fitted_on() -> None:
    """Every reported rate is of the judged half: a multiple of one over its number of holes."""
    holes = trials(101, noise=0.5)
    result = fit_lengths(holes, generator=np.random.default_rng(4))
    assert result.num_judged == 51
    for _, rate in (*result.hit_rates, (0.0, result.raw_hit_rate)):
        assert rate * 51 == pytest.approx(round(rate * 51))
    shuffled = [holes[index] for index in np.random.default_rng(4).permutation(101)]
    assert dict(result.hit_rates)[0.0] == hit_rate(shuffled[50:], fit_bias(shuffled[:50]), 0.0)
    assert result.bias == fit_bias(shuffled)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"true_length": 0}, "true_length=0"),
        ({"lengths": ()}, r"lengths=\(\)"),
        ({"lengths": (2, 1), "confidences": (0.0, 0.0), "log_prior": (0.0, 0.0)}, r"lengths=\(2, 1\)"),
        ({"lengths": (0, 1), "confidences": (0.0, 0.0), "log_prior": (0.0, 0.0)}, r"lengths=\(0, 1\)"),
        ({"confidences": (0.0,)}, "every length needs one confidence"),
        ({"log_prior": (0.0,)}, "every length needs one confidence and one log-prior"),
        ({"confidences": (math.nan,) * len(GRID)}, "must be finite"),
    ],
)
def test_bad_trial_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(trials(1)[0], **changes)  # type: ignore[arg-type]


def test_too_few_holes_are_named() -> None:
    with pytest.raises(ValueError, match="5 holes: fewer than two lengths"):
        fit_bias(trials(5))


def test_unconnected_lengths_are_named() -> None:
    short, long = (
        [
            replace(each, true_length=three[2], lengths=three, confidences=(0.0,) * 3, log_prior=(0.0,) * 3)
            for each in trials(20)
        ]
        for three in ((1, 2, 3), (16, 24, 32))
    )
    with pytest.raises(ValueError, match="never occur in the same hole"):
        fit_bias([*short, *long], spared_steps=0)


def test_hole_that_comes_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="a hole comes twice"):
        fit_lengths(trials(50) * 2, generator=np.random.default_rng(0))


def test_missing_trials_are_reported() -> None:
    with pytest.raises(ValueError, match="0 holes"):
        choose_prior_weight([], ())
