"""Denoising steps whose accepted tokens are final: what a run is worth without self-correction. One row at a time.

Shape legend: R rows, 1 of them here, M free positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dgemma_engine.diffusion.canvas import Canvas, CanvasLayout
from dgemma_engine.diffusion.sampler import PositionScores
from dgemma_engine.diffusion.step_executor import StepExecutor


class FrozenExecutor:
    """See `StepExecutor`.

    Args:
        executor: of the same canvas; computes the steps.
        canvas: of one row; frozen tokens are written back to it after each step.
    """

    def __init__(self, executor: StepExecutor, canvas: Canvas) -> None:
        assert len(canvas.layout.rows) == 1, "one row at a time"
        self._executor, self._canvas = executor, canvas
        self._is_frozen_RM = torch.zeros_like(canvas.layout.valid_RM)
        self._frozen_RM = torch.zeros_like(canvas.layout.free_RM)

    @property
    def layout(self) -> CanvasLayout:
        """See `StepExecutor.layout`."""
        return self._executor.layout

    def tokens(self) -> Tensor:
        """See `StepExecutor.tokens`."""
        return self._executor.tokens()

    def forward(self, temperature: float, *, steps_left: int) -> None:
        """See `StepExecutor.forward`."""
        self._executor.forward(temperature, steps_left=steps_left)

    def score(self) -> PositionScores:
        """See `StepExecutor.score`; a frozen token is the best one, with entropy 0."""
        scores = self._executor.score()
        return replace(
            scores,
            best_RM=torch.where(self._is_frozen_RM, self._frozen_RM, scores.best_RM),
            entropy_RM=scores.entropy_RM.masked_fill(self._is_frozen_RM, 0.0),
        )

    def confidence(self, place: int) -> list[float]:
        """See `StepExecutor.confidence`: of the model's own answer."""
        return self._executor.confidence(place)

    def log_probabilities(self, place: int) -> Tensor:
        """See `StepExecutor.log_probabilities`."""
        return self._executor.log_probabilities(place)

    def renoise(self) -> Tensor:
        """See `StepExecutor.renoise`; an accepted token stays accepted."""
        accepted_RM = self._executor.renoise()
        free_M = self.layout.free_RM[0]
        ids_1L = self._executor.tokens()
        drawn_RM = ids_1L[:, free_M]
        self._frozen_RM = torch.where(self._is_frozen_RM, self._frozen_RM, drawn_RM)
        self._is_frozen_RM |= accepted_RM
        ids_1L = ids_1L.clone()
        ids_1L[:, free_M] = torch.where(self._is_frozen_RM, self._frozen_RM, drawn_RM)
        self._canvas.replace(ids_1L)
        return self._is_frozen_RM.clone()

    def select_rows(self, places: Sequence[int]) -> None:
        """See `StepExecutor.select_rows`; the only row stays."""
        assert list(places) == [0], "the only row stays"
