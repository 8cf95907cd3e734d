"""The score is fitted on all candidates and judged by the first of each hole, with weights fitted without its file."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from dgemma_engine.checkpoint.features import NAMES, Features
from dgemma_engine.errors import EngineError
from dgemma_engine.tools.calibration.figures import CalibrationFigures
from dgemma_engine.tools.calibration.judged_hole import JudgedCandidate, JudgedHole
from dgemma_engine.tools.calibration.length_bias import LengthFit
from dgemma_engine.tools.calibration.score_fit import fit_score, num_right_first


def candidate(
    *, right: bool, middle_mean: float = -1.0, agreement: float = 0.0, canvas: float | None = None
) -> JudgedCandidate:
    on_canvas = 0.0 if canvas is None else 1.0
    features = Features(
        middle_mean=middle_mean, middle_sum=middle_mean, suffix_mean=0.0, agreement=agreement,
        canvas_mean=canvas or 0.0, on_canvas=on_canvas,
    )  # fmt: skip
    return JudgedCandidate(features=features, right=right)


def hole(number: int, *candidates: JudgedCandidate, num_files: int = 10, kind: str = "line") -> JudgedHole:
    return JudgedHole(hole=str(number), kind=kind, file=number % num_files, candidates=candidates)


def misleading(count: int = 200) -> list[JudgedHole]:
    """Of two candidates the one that may be right is less likely, but from a canvas; every tenth hole has none."""
    draw = Random(0)
    holes: list[JudgedHole] = []
    for number in range(count):
        has_truth = draw.random() < 0.6
        pair = [
            candidate(right=False, middle_mean=draw.gauss(-1, 0.2)),
            candidate(right=has_truth, middle_mean=draw.gauss(-2, 0.2), agreement=float(has_truth), canvas=-1.0),
        ]
        holes.append(hole(number, *(pair if number % 10 else []), kind="rest" if number % 3 else "line"))
    return holes


def test_the_first_candidate_is_the_one_with_the_highest_held_out_probability() -> None:
    holes = misleading()
    fit = fit_score(holes, target=0.3, seed=0)
    with_truth = sum(one.has_truth for one in holes)
    assert int(fit.right.sum()) == with_truth
    assert len(fit.predictions) == len(fit.right) == 180
    assert num_right_first(holes, lambda of: of.middle_mean) == 0
    assert fit.predictions[fit.right].min() > fit.predictions[~fit.right].max()
    assert fit.logistic.weights[NAMES.index("agreement")] > 0
    assert fit.points[0].coverage == pytest.approx(0.9)


def test_predictions_come_from_weights_fitted_without_the_file() -> None:
    # Each file has its own feature, which determines its labels and no others.
    holes: list[JudgedHole] = []
    for number in range(200):
        marks = {name: float(index == number % 10) for index, name in enumerate(NAMES)}
        holes.append(hole(number, JudgedCandidate(features=Features(**marks), right=number % 10 < 5)))
    assert fit_score(holes, target=0.3, seed=0).reliability.brier > 0.22


def test_figures_count_holes_without_candidates_as_wrong() -> None:
    holes = misleading()
    fit = fit_score(holes, target=0.9, seed=0)
    figures = CalibrationFigures.of(holes, fit, None, "there were none")
    share = sum(one.has_truth for one in holes) / 200
    assert figures.exact_match == figures.oracle == share
    # Without a canvas `canvas_mean` is 0, its largest value, and has no meaning.
    assert (figures.exact_match_plain, figures.exact_match_canvas) == (0, share)
    assert figures.silent == pytest.approx(0.1)
    assert figures.exact_match_ci[0] < share < figures.exact_match_ci[1]
    assert (figures.n, figures.num_files, figures.num_candidates) == (200, 10, 360)
    assert figures.base_rate == pytest.approx(share * 200 / 360)
    assert figures.target_reached and figures.precision >= 0.9
    assert figures.precision_at_30 == 1.0
    assert sum(kind.n * kind.exact_match for kind in figures.kinds.values()) == pytest.approx(200 * share)
    assert {name: kind.n for name, kind in figures.kinds.items()} == {"line": 67, "rest": 133}
    assert figures.brier < 0.02 < figures.brier_constant
    text = "\n".join(figures.table())
    assert "not fitted: there were none" in text
    assert "10.0% have no candidate" in text
    assert figures.result()["weights"].keys() == set(NAMES)


def test_figures_of_lengths_are_those_of_the_chosen_weight() -> None:
    lengths = LengthFit(
        bias=((1, 0.5), (2, -0.5)), prior_weight=0.5, hit_rates=((0.0, 0.2), (0.5, 0.6), (1.0, 0.4)),
        raw_hit_rate=0.1, num_judged=30,
    )  # fmt: skip
    holes = misleading()
    figures = CalibrationFigures.of(holes, fit_score(holes, target=0.3, seed=0), lengths, "")
    found = figures.lengths
    assert found is not None
    assert (found.hit_raw, found.hit_unbiased, found.hit_corrected) == (0.1, 0.2, 0.6)
    assert "within one step 10.0% raw, 20.0% without bias, 60.0% with prior weight 0.5" in "\n".join(figures.table())
    assert figures.result()["lengths"]["bias"] == [[1, 0.5], [2, -0.5]]


def test_unreachable_target_is_reported() -> None:
    draw = Random(1)
    holes = [hole(number, candidate(right=draw.random() < 0.1)) for number in range(100)]
    fit = fit_score(holes, target=0.9, seed=0)
    assert not fit.choice.reached
    assert "was not reached" in "\n".join(CalibrationFigures.of(holes, fit, None, "").table())


@pytest.mark.parametrize(("answered", "min_shown"), [(400, 50), (100, 25), (20, 5)])
def test_threshold_shows_enough_holes_to_be_judged(answered: int, min_shown: int) -> None:
    draw = Random(2)
    holes = [
        hole(number, candidate(right=draw.random() < 0.5, agreement=draw.gauss(0, 1))) for number in range(answered)
    ]
    assert fit_score(holes, target=1.0, seed=0).choice.point.num_shown >= min_shown


def test_precision_at_a_coverage_is_that_of_the_highest_threshold_that_reaches_it() -> None:
    fit = fit_score(misleading(), target=0.3, seed=0)
    point = fit.at_coverage(0.3)
    assert point is not None
    assert point.coverage >= 0.3
    assert all(other.coverage < 0.3 for other in fit.points if other.threshold > point.threshold)
    assert fit.at_coverage(0.95) is None


@pytest.mark.parametrize(
    ("holes", "message"),
    [
        ([], "in 0 files only, 5 are needed"),
        ([hole(n, candidate(right=n % 2 == 0), num_files=4) for n in range(40)], "in 4 files only, 5 are needed"),
        ([hole(n, candidate(right=False)) for n in range(40)], "of 40 candidates none is right"),
        ([hole(n, candidate(right=True)) for n in range(40)], "of 40 candidates every one is right"),
    ],
)
def test_too_few_candidates_are_reported(holes: list[JudgedHole], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        fit_score(holes, target=0.3, seed=0)


def test_same_seed_same_fit() -> None:
    one, other = (fit_score(misleading(), target=0.3, seed=5) for _ in range(2))
    assert np.array_equal(one.predictions, other.predictions)
    assert (one.logistic, one.choice) == (other.logistic, other.choice)
