from __future__ import annotations

from datetime import date
from random import Random

from dgemma_engine.checkpoint.calibration import Calibration
from dgemma_engine.checkpoint.features import Features
from dgemma_engine.tools.calibration.judged_hole import JudgedCandidate, JudgedHole
from dgemma_engine.tools.tuning.refit import MIN_HOLES, Refit

BASE = Calibration.default()


def holes(count: int, *, files: int = 10, right: float = 0.5) -> list[JudgedHole]:
    draw = Random(0)
    made: list[JudgedHole] = []
    for number in range(count):
        is_right = draw.random() < right
        mean = draw.gauss(-0.5 if is_right else -2.0, 0.5)
        candidate = JudgedCandidate(features=Features(middle_mean=mean, middle_sum=-3, suffix_mean=-1), right=is_right)
        made.append(JudgedHole(hole=str(number), kind="rest", file=number % files, candidates=(candidate,)))
    return made


def refit(found: list[JudgedHole], precision: float | None = 0.7) -> Refit | None:
    return Refit.of(
        found, BASE, fingerprint="ab" * 32, precision=precision, num_files=20, today=date(2026, 1, 31), seed=0
    )


def test_enough_holes_give_a_calibration_that_is_as_precise() -> None:
    fitted = refit(holes(MIN_HOLES))
    assert fitted is not None and fitted.precision >= 0.7 and 0 < fitted.shown <= 1
    calibration = fitted.calibration
    assert calibration.weights is not None and calibration.fingerprint == "ab" * 32
    assert calibration.provenance is not None
    assert (calibration.provenance.num_files, calibration.provenance.file_share) == (10, 0.5)
    good, bad = (Features(middle_mean=mean, middle_sum=-3, suffix_mean=-1) for mean in (-0.5, -2.0))
    assert calibration.probability(good) > calibration.threshold > calibration.probability(bad)


def test_calibration_is_unchanged_where_nothing_can_be_learnt() -> None:
    assert refit(holes(MIN_HOLES - 1)) is None
    assert refit(holes(MIN_HOLES, files=4)) is None
    assert refit(holes(MIN_HOLES, right=0.0)) is None
    assert refit(holes(MIN_HOLES, right=1.0)) is None


def test_less_precise_calibration_is_refused() -> None:
    mixed = [
        JudgedHole(hole=hole.hole, kind="rest", file=hole.file, candidates=(
            JudgedCandidate(features=Features(middle_mean=-1, middle_sum=-3, suffix_mean=-1), right=number % 2 == 0),
        ))
        for number, hole in enumerate(holes(MIN_HOLES))
    ]  # fmt: skip
    assert refit(mixed, precision=0.9) is None
    assert refit(mixed, precision=0.3) is not None
