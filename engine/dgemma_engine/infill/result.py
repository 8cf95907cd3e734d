"""What came of looking for candidates for one hole, or why nobody looked to the end. Plain values; knows no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dgemma_engine.checkpoint.calibration import Calibration
from dgemma_engine.infill.candidate import Proposed
from dgemma_engine.infill.ranker import Ranked
from dgemma_engine.protocol.messages import Candidate, Finish, Infill
from dgemma_engine.scheduling.cancellation import Cancel


@dataclass(slots=True, kw_only=True)
class Search:
    """What came of looking for candidates.

    Attributes:
        found: candidates before ranking.
        ranked: best first.
        judged: whether the causal mode has judged them.
        finish: why there is no answer, if there is none.
    """

    found: Proposed
    ranked: list[Ranked] = field(default_factory=list[Ranked])
    judged: bool = False
    finish: Finish | None = None

    def is_over(self, cancel: Cancel) -> bool:
        """Whether the request was cancelled or is out of time; then that is its finish."""
        if cancel.cancelled or cancel.expired:
            self.finish = Finish.CANCELLED if cancel.cancelled else Finish.DEADLINE
        return self.finish is not None

    def is_worth_it(self, calibration: Calibration, least_draft_score: float) -> bool:
        """Whether the best candidate is likely enough to be right.

        One that nobody judged never is where scores mean more.

        Args:
            calibration: of the model.
            least_draft_score: from which an unjudged one is, for a model that has none.
        """
        if self.judged:
            return self.ranked[0].score >= calibration.threshold
        return calibration.weights is None and self.ranked[0].score >= least_draft_score

    def answer(self, shown: Sequence[Ranked], timings_ms: dict[str, float], *, unlikely: bool = False) -> Infill:
        """Returns the answer that says this.

        Args:
            shown: what to show of the ranked ones, best first; may be empty.
            timings_ms: of the stages.
            unlikely: whether the first of `shown` is below the threshold.
        """
        found = self.found
        silent = found.finish if found.finish is Finish.DEADLINE else Finish.EMPTY
        return Infill(
            text=shown[0].proposal.text if shown else "",
            finish=self.finish or (found.finish if shown else silent),
            score=shown[0].score if shown else 0.0,
            steps=found.steps,
            forwards=found.steps + found.passes,
            candidates=tuple(
                Candidate(text=one.proposal.text, score=one.score, source=one.proposal.source) for one in shown
            ),
            timings_ms=timings_ms,
            unlikely=unlikely and bool(shown and shown[0].proposal.text),
        )
