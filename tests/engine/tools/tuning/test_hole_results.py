from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from dgemma_engine.infill.candidate import Proposal, Ranked
from dgemma_engine.infill.options import InfillOptions
from dgemma_engine.protocol.messages import CandidateSource, Context
from dgemma_engine.repository_adapters.about import HeldOutFigures
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tools.calibration.samples import SampledHole
from dgemma_engine.tools.evaluation.holes.task import Task
from dgemma_engine.tools.tuning.hole_results import HoleResult, figures_of, measure

from tests.engine.tools.tuning.conftest import KnowingEngine

TASK = Task(task_id="one", kind="rest", path="a.py", language="python", prefix="x = ", suffix=")\ny", middle="f(a")


class Answering(KnowingEngine):
    """Proposes one text with a score, or nothing."""

    def __init__(self, text: str | None, *, score: float = 0.5, covered: int = 0) -> None:
        super().__init__(Path("/nowhere"), 0.0)
        self._text, self._score, self._covered = text, score, covered

    def ranked(self, context: Context, cancel: Cancel, *, options: InfillOptions) -> list[Ranked]:
        if self._text is None:
            return []
        proposal = Proposal(text=self._text, source=CandidateSource.LEFT_TO_RIGHT, covered=self._covered)
        return [Ranked(proposal=proposal, score=self._score, features=None)]


def result_of(engine: Answering, threshold: float = 0.5) -> HoleResult:
    samples = [SampledHole(hole="one", file=7, task=TASK)]
    measured = measure(
        engine, samples, folder="/r", threshold=threshold, seed=0, clock=lambda: 0.0, goes_on=lambda _done: True
    )
    return measured.results[0]


@pytest.mark.parametrize(
    ("engine", "exact", "similarity"),
    [
        (Answering("f(a"), True, 1.0),
        (Answering("  f(a \n"), True, 1.0),
        # The replaced part of the suffix belongs to the true text.
        (Answering("f(a)", covered=1), True, 1.0),
        (Answering("f(ab"), False, round(6 / 7, 4)),
        (Answering("zzz"), False, 0.0),
        (Answering(None), False, 0.0),
    ],
)
def test_first_candidate_is_compared_with_the_truth(engine: Answering, exact: bool, similarity: float) -> None:
    result = result_of(engine)
    assert (result.exact, result.similarity) == (exact, similarity)
    assert (result.hole, result.kind, result.file) == ("one", "rest", 7)


def test_candidate_below_the_threshold_is_not_shown() -> None:
    assert result_of(Answering("f(a", score=0.5)).shown
    assert not result_of(Answering("f(a", score=0.49)).shown
    assert not result_of(Answering(None), threshold=0.0).shown


def test_measuring_ends_when_interrupted() -> None:
    samples = [SampledHole(hole=str(number), file=7, task=TASK) for number in range(9)]
    measured = measure(
        Answering("f(a"), samples, folder="/r", threshold=0.5, seed=0, clock=lambda: 0.0, goes_on=lambda done: done < 4
    )
    assert [result.hole for result in measured.results] == ["0", "1", "2", "3"]
    assert [judged.hole for judged in measured.judged] == ["0", "1", "2", "3"]


def test_figures_are_by_kind_and_of_shown_candidates() -> None:
    hole = HoleResult(hole="1", kind="rest", file=1, exact=True, similarity=1.0, shown=True)
    wrong = replace(hole, exact=False, similarity=0.5)
    results = [hole, wrong, wrong, replace(wrong, shown=False), replace(hole, kind="line", shown=False)]
    assert figures_of(results) == HeldOutFigures(
        num_holes=5, rest=0.25, line=1.0, edit_similarity=0.7, precision_shown=0.3333, shown=0.6
    )


def test_figures_of_kinds_that_are_missing_are_missing() -> None:
    hole = HoleResult(hole="1", kind="multiline", file=1, exact=True, similarity=1.0, shown=False)
    figures = figures_of([hole])
    assert (figures.rest, figures.line, figures.precision_shown, figures.shown) == (None, None, None, 0)
