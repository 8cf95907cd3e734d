"""One evaluation: holes and what fills them in, judgements, figures and the published result out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dgemma_engine.tools.evaluation.figures import EvaluationFigures, figures_by_kind
from dgemma_engine.tools.evaluation.filling import Filler
from dgemma_engine.tools.evaluation.holes.task import Task
from dgemma_engine.tools.evaluation.judgement import Judgement, judge
from dgemma_engine.tools.evaluation.provenance import provenance
from dgemma_engine.tools.evaluation.report import table
from dgemma_engine.tools.evaluation.result_files import ResultFile
from dgemma_engine.tools.evaluation.sandbox.execution import Executor

_REPORT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What an evaluation found.

    Attributes:
        kinds: figures of each kind of hole.
        overall: figures of all holes together.
    """

    kinds: Mapping[str, EvaluationFigures]
    overall: EvaluationFigures

    def table(self) -> Iterator[str]:
        """Yields the lines of a table for a person."""
        return table(self.kinds, self.overall)

    def result(
        self, *, holes: str, model: str | None, device: str | None, recipe: Mapping[str, Any], seed: int
    ) -> dict[str, Any]:
        """Returns the published result, JSON-ready: figures, what they are of, and where they were taken.

        Args:
            holes: name of the hole file.
            model: name of the model; None for a baseline without one.
            device: where the model ran; None without one.
            recipe: how holes were filled.
            seed: of all random draws.
        """
        return {
            "command": "eval",
            "holes": holes,
            **_rounded(asdict(self.overall)),
            "kinds": {kind: _rounded(asdict(figures)) for kind, figures in self.kinds.items()},
            "model": model,
            "device": device,
            "recipe": dict(recipe),
            "seed": seed,
            **provenance(device),
        }


def measure(
    tasks: Sequence[Task],
    filler: Filler,
    *,
    seed: int,
    executor: Executor | None,
    results: ResultFile,
    clock: Callable[[], float],
    report: Callable[[str], None],
) -> Measured:
    """Fills and judges holes.

    Args:
        tasks: the holes, at least one.
        filler: answers them.
        seed: of the intervals' resamples.
        executor: runs the tests; None runs none.
        results: receives every judgement as it is made.
        clock: seconds that never go backwards.
        report: called with a line on the progress, at most every 30 s.

    Raises:
        EngineError: a judgement cannot be written.
    """
    judgements: list[Judgement] = []
    said_s = clock()
    for task in tasks:
        filling = filler.fill(task)
        passed = executor.passes(task, filling.text) if executor else None
        judgements.append(judge(task, filling, passed=passed))
        results.add(judgements[-1])
        if clock() - said_s >= _REPORT_S:
            said_s = clock()
            report(f"{len(judgements)} of {len(tasks)} holes")
    return Measured(kinds=figures_by_kind(judgements, seed=seed), overall=EvaluationFigures.of(judgements, seed=seed))


def _rounded(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Rounds to four digits after the point, which is more than any interval warrants."""
    rounded: dict[str, Any] = {}
    for name, value in figures.items():
        if isinstance(value, tuple):
            rounded[name] = [round(end, 4) for end in value]
        else:
            rounded[name] = round(value, 4) if isinstance(value, float) else value
    return rounded
