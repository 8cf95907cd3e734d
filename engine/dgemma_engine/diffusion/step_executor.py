"""The device side of a denoising run: the canvas's tokens, the model's passes and the distributions of the last step.

`Denoiser` decides when; an executor computes. `EagerExecutor` calls the model operation by operation on any device, and
`backends.cuda.graph_executor` replays CUDA graphs; from the same seeds both give the same tokens.

Shape legend: R rows, L positions of all rows together, M positions of the longest free part, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from dgemma_engine.diffusion.canvas import Canvas, CanvasLayout
from dgemma_engine.diffusion.sampler import PositionScores, Sampler
from dgemma_engine.model.kv_cache import PromptCache


class StepExecutor(Protocol):
    """Steps of one canvas: forward, score, then renoise before the next forward or before rows leave."""

    @property
    def layout(self) -> CanvasLayout:
        """The layout of the rows on the canvas, on the device of the scores."""
        ...

    def tokens(self) -> Tensor:
        """Returns the tokens on the canvas, [1, L] int64, on the layout's device."""
        ...

    def forward(self, temperature: float, *, steps_left: int) -> None:
        """Runs the model over the canvas; may return before the device is done.

        Args:
            temperature: of the step, > 0.
            steps_left: that follow this one; after the last, distributions of clamped positions are not needed.
        """
        ...

    def score(self) -> PositionScores:
        """Returns the scores of the last forward pass; waits for the device."""
        ...

    def confidence(self, place: int) -> list[float]:
        """Returns the probabilities at temperature 1 of the answer of the row at `place` when it was last scored."""
        ...

    def log_probabilities(self, place: int) -> Tensor:
        """Returns log-probabilities at temperature 1, [free positions, V], of the row at `place`; before `renoise`."""
        ...

    def renoise(self) -> Tensor:
        """Makes the next canvas of the last scores; returns the accepted positions, [R, M] bool.

        Rows have another length afterwards where the sampler's `resizing` says so.
        """
        ...

    def select_rows(self, places: Sequence[int]) -> None:
        """Lets all rows but those at `places`, at least one, leave the canvas."""
        ...


class ExecutorFactory(Protocol):
    """Starts executors of one model."""

    def __call__(
        self,
        cache: PromptCache,
        canvas: Canvas,
        sampler: Sampler,
        *,
        suppressed_ids: Tensor,
        block_ids: Sequence[int] = (),
    ) -> StepExecutor:
        """Returns the executor of a run.

        Args:
            cache: the prompt; only read, except that the block is added.
            canvas: its rows, first tokens and generators.
            sampler: the decisions.
            suppressed_ids: token ids that may not appear at any position, int64 [any]; may be empty.
            block_ids: tokens that the first pass adds to the cache: the block before this canvas.
        """
        ...
