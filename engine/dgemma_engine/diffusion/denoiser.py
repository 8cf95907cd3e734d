"""The denoising loop: rows, their history, the stop rule and which rows go on; an executor computes the steps.

Every position is scored anew at every step; what is not accepted is replaced by noise, and clamped positions are
rewritten after that. The answer of a row is its best tokens at its last step, not its sampled canvas.

Shape legend: R rows, M positions of the longest free part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Protocol

import torch
from torch import Tensor

from dgemma_engine.diffusion.sampler import PositionScores, Sampler
from dgemma_engine.diffusion.step_executor import StepExecutor
from dgemma_engine.protocol.messages import Finish
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.scheduling.timing import Cancel


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """The answer of a row after a step.

    Attributes:
        ids: best token of each free position, without the tokens that only change the length of a row.
        confidence: their probabilities at temperature 1.
        entropy: nats at each free position, at the temperature of the step.
        steps: denoising steps the row has made.
    """

    ids: list[int]
    confidence: list[float]
    entropy: list[float]
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoised:
    """The end of a run.

    Attributes:
        finish: STABLE (every row that was kept), STEP_LIMIT, DEADLINE or CANCELLED.
        guesses: by index of the row; a dropped row keeps its last guess, one that made no step has none.
        steps: passes over the canvas.
    """

    finish: Finish
    guesses: dict[int, Guess]
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredStep:
    """A step of the rows that were then on the canvas.

    Attributes:
        live: their indices, in the order of the canvas.
        num_free: free positions of each.
        finished: indices of the rows that may stop.
        scores: of the free positions.
        temperature: of the step.
    """

    live: list[int]
    num_free: list[int]
    finished: list[int]
    scores: PositionScores
    temperature: float


class StepObserver(Protocol):
    """Receives every step; changes nothing."""

    def scored(self, step: ScoredStep, executor: StepExecutor) -> None:
        """Receives the scores of a canvas, whose tokens and distributions the executor still holds."""
        ...

    def renoised(self, accepted_RM: Tensor, executor: StepExecutor) -> None:
        """Receives which positions were accepted, and the executor with the next canvas, of the same rows."""
        ...


class Denoiser:
    """Rows being denoised; finished and dropped ones leave the canvas.

    Args:
        executor: computes the steps of a canvas.
        sampler: the decisions.
        num_steps: most steps, in place of the sampler's.
        observer: receives every step; None costs nothing.

    Attributes:
        num_steps: most steps; the temperature schedule is spread over them.
        steps: those made.
        live: indices of the rows still on the canvas.
        finished: those that the stop rule ended at the last step.
    """

    def __init__(
        self,
        executor: StepExecutor,
        sampler: Sampler,
        *,
        num_steps: int | None = None,
        observer: StepObserver | None = None,
    ) -> None:
        self._executor = executor
        self._sampler = sampler
        self._observer = observer
        self._earlier = deque[Tensor](maxlen=sampler.stop.num_earlier)
        self._temperature = 0.0
        self._last: ScoredStep | None = None
        self._guesses: dict[int, Guess] = {}
        self.num_steps = sampler.num_steps if num_steps is None else num_steps
        self.steps = 0
        self.live = list(range(len(executor.layout.rows)))
        self.finished: list[int] = []

    def step(self) -> None:
        """Makes one denoising step; `advance` comes between two."""
        self.forward()
        self.score()

    def forward(self) -> None:
        """Runs the model over the canvas: the first part of a step, and the longer one."""
        remaining = self.num_steps - self.steps
        self._temperature = self._sampler.schedule.temperature(remaining, self.num_steps)
        self._executor.forward(self._temperature, steps_left=remaining - 1)

    def score(self) -> None:
        """Scores every position by the last forward pass: the second part of a step."""
        scores = self._executor.score()
        finished_R = self._sampler.stop.finished(self._earlier, scores)
        self._earlier.append(scores.best_RM)
        self.finished = [index for index, done in zip(self.live, finished_R.tolist(), strict=True) if done]
        self._last = ScoredStep(
            live=self.live,
            num_free=[row.num_free for row in self._executor.layout.rows],
            finished=self.finished,
            scores=scores,
            temperature=self._temperature,
        )
        if self._observer is not None:
            self._observer.scored(self._last, self._executor)
        self._guesses.clear()
        self.steps += 1

    def guess(self, index: int) -> Guess:
        """Returns the answer of row `index` at the last step; it must have been on the canvas then."""
        if index not in self._guesses:
            assert self._last is not None, "no step was made"
            last, place = self._last, self._last.live.index(index)
            num_free, resizing = last.num_free[place], self._sampler.resizing
            ids, confidence = last.scores.best_RM[place, :num_free].tolist(), self._executor.confidence(place)
            if resizing is not None:
                is_text = [token_id not in resizing.ids for token_id in ids]
                ids, confidence = [*compress(ids, is_text)], [*compress(confidence, is_text)]
            self._guesses[index] = Guess(
                ids=ids,
                confidence=confidence,
                entropy=last.scores.entropy_RM[place, :num_free].tolist(),
                steps=self.steps,
            )
        return self._guesses[index]

    def advance(self, indices: Sequence[int]) -> None:
        """Makes the next canvas of the last scores, and lets all rows but `indices`, at least one, leave it."""
        accepted_RM = self._executor.renoise()
        if self._observer is not None:
            self._observer.renoised(accepted_RM, self._executor)
        places = [place for place, index in enumerate(self.live) if index in indices]
        if len(places) == len(self.live):
            return
        self._executor.select_rows(places)
        most = self._executor.layout.valid_RM.shape[1]
        self._earlier = deque((best_RM[places, :most] for best_RM in self._earlier), maxlen=self._earlier.maxlen)
        self.live = [self.live[place] for place in places]


class RowSelection(Protocol):
    """Decides after the first step which rows go on; a length search chooses those of the likeliest lengths."""

    def __call__(self, denoiser: Denoiser, /) -> Sequence[int]:
        """Returns indices of rows on the canvas."""
        ...


@torch.inference_mode()
def denoise(
    denoiser: Denoiser,
    *,
    cancel: Cancel,
    on_step: Callable[[Denoiser], None],
    choose: RowSelection | None = None,
) -> Pieces[Denoised]:
    """Steps until every row is finished, the steps are spent, or time is up; a step is two pieces.

    Args:
        denoiser: the rows.
        cancel: checked before every step; a cancellation also in its middle.
        on_step: called after every step.
        choose: called after the first step; only the rows it returns go on.
    """
    guesses: dict[int, Guess] = {}
    finish = Finish.STEP_LIMIT
    while denoiser.steps < denoiser.num_steps:
        yield
        if (stop := cancel.finish) is not None:
            finish = stop
            break
        denoiser.forward()
        yield
        if cancel.cancelled:
            # A forward pass that was not scored is no step.
            finish = Finish.CANCELLED
            break
        denoiser.score()
        on_step(denoiser)
        wanted = choose(denoiser) if choose is not None and denoiser.steps == 1 else denoiser.live
        going_on = [index for index in wanted if index not in denoiser.finished]
        for index in denoiser.live:
            if index not in going_on:
                guesses[index] = denoiser.guess(index)
        if not going_on:
            finish = Finish.STABLE
            break
        if denoiser.steps < denoiser.num_steps:
            denoiser.advance(going_on)
    if denoiser.steps:
        guesses |= {index: denoiser.guess(index) for index in denoiser.live if index not in guesses}
    return Denoised(finish=finish, guesses=guesses, steps=denoiser.steps)
