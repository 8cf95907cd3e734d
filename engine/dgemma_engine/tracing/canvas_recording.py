"""The denoising steps of one canvas, step by step, for a request that asked for a trace; part of `recorder`.

Shape legend: R rows, M free positions of a row, V vocabulary, K tokens kept per position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from dgemma_engine.protocol.trace_messages import CanvasTrace, RowKind, RowStep, RowTrace, StepTrace

if TYPE_CHECKING:
    from torch import Tensor

    from dgemma_engine.diffusion.denoiser import ScoredStep
    from dgemma_engine.diffusion.step_executor import StepExecutor
    from dgemma_engine.infill.hypotheses import Hypothesis, RowReading

# Likeliest tokens kept per position.
_MOST_OTHERS = 4


@dataclass(slots=True, kw_only=True)
class _RowRecording:
    """A row at a step while it is being recorded; the fields are those of `RowStep`."""

    seen_ids: list[int]
    best_ids: list[int]
    confidence: list[float]
    entropy: list[float]
    other_ids: list[list[int]]
    other_probabilities: list[list[float]]
    settled: bool
    accepted: list[int] = field(default_factory=list[int])
    next_ids: list[int] = field(default_factory=list[int])
    text: str = ""
    mean_logprob: float = 0.0

    @classmethod
    def of(cls, step: ScoredStep, executor: StepExecutor, place: int) -> Self:
        """Returns the tokens, scores and likeliest tokens of the row at `place` on the canvas."""
        num_free = step.num_free[place]
        best_M, logprobs_MV = step.scores.best_RM[place, :num_free], executor.log_probabilities(place)
        best_logprob_M = logprobs_MV.gather(-1, best_M.to(logprobs_MV.device)[:, None])[:, 0]
        others = logprobs_MV.topk(min(_MOST_OTHERS, logprobs_MV.shape[-1]))
        return cls(
            seen_ids=_free_tokens(executor, place),
            best_ids=best_M.tolist(),
            confidence=best_logprob_M.exp().tolist(),
            entropy=step.scores.entropy_RM[place, :num_free].tolist(),
            other_ids=others.indices.tolist(),
            other_probabilities=others.values.exp().tolist(),
            settled=step.live[place] in step.finished,
        )

    def message(self, index: int) -> RowStep:
        """Returns the recording of the row with this index as a message."""
        return RowStep(
            row=index,
            seen_ids=tuple(self.seen_ids),
            best_ids=tuple(self.best_ids),
            confidence=tuple(self.confidence),
            entropy=tuple(self.entropy),
            other_ids=tuple(map(tuple, self.other_ids)),
            other_probabilities=tuple(map(tuple, self.other_probabilities)),
            accepted=tuple(self.accepted),
            next_ids=tuple(self.next_ids),
            settled=self.settled,
            text=self.text,
            mean_logprob=self.mean_logprob,
        )


@dataclass(slots=True, kw_only=True)
class _StepRecording:
    """A step while it is being recorded; rows by their index."""

    temperature: float
    elapsed_ms: float
    rows: dict[int, _RowRecording]

    def message(self) -> StepTrace:
        rows = tuple(row.message(index) for index, row in self.rows.items())
        return StepTrace(temperature=self.temperature, elapsed_ms=self.elapsed_ms, rows=rows)


class CanvasRecording:
    """A canvas while it is being recorded.

    Args:
        hypotheses: its rows.
        written_ids: tokens of the middle that earlier canvases settled.
        steps_limit: most steps.
    """

    def __init__(self, hypotheses: Sequence[Hypothesis], written_ids: Sequence[int], steps_limit: int) -> None:
        self._rows = tuple(
            RowTrace(
                kind=RowKind.SEED if one.seed else RowKind.LENGTH if one.exact else RowKind.SLOT,
                num_free=one.row.num_free,
                opening_ids=one.row.opening_ids,
                head_ids=one.row.head_ids,
                seed=one.seed.text if one.seed else "",
            )
            for one in hypotheses
        )
        self._written_ids, self._steps_limit = tuple(written_ids), steps_limit
        self._steps: list[_StepRecording] = []

    def add_step(self, step: ScoredStep, executor: StepExecutor, elapsed_ms: float) -> None:
        """Records the scores of a step."""
        rows = {index: _RowRecording.of(step, executor, place) for place, index in enumerate(step.live)}
        self._steps.append(_StepRecording(temperature=step.temperature, elapsed_ms=elapsed_ms, rows=rows))

    def add_readings(self, readings: Mapping[int, RowReading], texts: Mapping[int, str]) -> None:
        """Records the texts of rows, by index, after the last step."""
        for index, reading in readings.items():
            row = self._steps[-1].rows[index]
            row.text, row.mean_logprob = texts[index], reading.mean_logprob

    def add_next(self, accepted_RM: Tensor, executor: StepExecutor) -> None:
        """Records which positions of the last step were accepted, and the tokens on the canvas now."""
        for place, row in enumerate(self._steps[-1].rows.values()):
            # A row may have another length now.
            row.accepted = list(map(int, accepted_RM[place, : len(row.best_ids)].tolist()))
            row.next_ids = _free_tokens(executor, place)

    def message(self) -> CanvasTrace:
        """Returns the recording as a message."""
        return CanvasTrace(
            written_ids=self._written_ids,
            steps_limit=self._steps_limit,
            rows=self._rows,
            steps=tuple(step.message() for step in self._steps),
        )


def _free_tokens(executor: StepExecutor, place: int) -> list[int]:
    layout = executor.layout
    return executor.tokens()[0, layout.free_RM[place, : layout.rows[place].num_free]].tolist()
