"""Rows of a task solved with a model: the engine's own denoiser, or the same weights from left to right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from dgemma_engine.diffusion import canvas as canvases
from dgemma_engine.diffusion.denoiser import Denoiser, StepObserver, denoise
from dgemma_engine.diffusion.eager_executor import EagerExecutor
from dgemma_engine.diffusion.sampler import EveryStep
from dgemma_engine.diffusion.step_executor import StepExecutor
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tools.tasks.frozen_executor import FrozenExecutor
from dgemma_engine.tools.tasks.task_model import TaskModel
from dgemma_engine.tools.tasks.task_tokens import TaskTokens

Mode = Literal["adaptive", "fixed", "frozen", "left_to_right"]
"""How a row is solved: until it settles; in all steps; until it settles with accepted tokens final; by the causal mode,
which takes one pass a token."""

MODES: tuple[Mode, ...] = ("adaptive", "fixed", "frozen", "left_to_right")


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """What was found.

    Attributes:
        ids: tokens of the free positions, in order.
        steps: passes of the model over the canvas, or over a token at a time.
    """

    ids: list[int]
    steps: int

    def num_right(self, tokens: TaskTokens) -> int:
        """Returns how many tokens are those of the row."""
        wanted: list[int] = tokens.canvas[tokens.is_free].tolist()
        return sum(found == right for found, right in zip(self.ids, wanted, strict=True))


class Solver:
    """Solves rows, one at a time.

    Args:
        model: makes the passes.
        num_steps: most denoising steps.
        mode: how.
        seed: of the noise.
    """

    def __init__(self, model: TaskModel, *, num_steps: int, mode: Mode, seed: int = 0) -> None:
        self._task_model, self._model, self._mode, self._seed = model, model.model, mode, seed
        stop = EveryStep() if mode == "fixed" else model.sampler.stop
        self._sampler = replace(model.sampler, num_steps=num_steps, stop=stop)
        self._suppressed = torch.tensor(model.suppressed_ids, dtype=torch.int64, device=self._model.device)

    @torch.inference_mode()
    def solve(self, tokens: TaskTokens, *, place: str, observer: StepObserver | None = None) -> Solution:
        """Solves a row.

        Args:
            tokens: of the row.
            place: of the row, for messages.
            observer: receives the denoising steps.

        Raises:
            TaskError: the row is too long for the model.
        """
        tokens.require_fits(self._task_model.canvas_tokens, self._task_model.context_tokens, place)
        device = self._model.device
        cache = PromptCache(self._model.config, capacity=tokens.length, dtype=self._model.dtype, device=device)
        hidden_1TD = self._model.encode(torch.tensor(tokens.prompt[None], dtype=torch.int64, device=device), cache)
        if self._mode == "left_to_right":
            return self._left_to_right(tokens, cache, hidden_1TD)
        canvas = canvases.start([tokens.canvas_row(self._seed)], self._sampler.noise, device)
        executor: StepExecutor = EagerExecutor(
            self._model, cache, canvas, self._sampler, suppressed_ids=self._suppressed
        )
        if self._mode == "frozen":
            executor = FrozenExecutor(executor, canvas)
        denoiser = Denoiser(executor, self._sampler, observer=observer)
        never = Cancel(deadline_s=math.inf, clock=lambda: 0.0)
        denoised = finished(denoise(denoiser, cancel=never, on_step=lambda _denoiser: None))
        return Solution(ids=denoised.guesses[0].ids, steps=denoised.steps)

    def _left_to_right(self, tokens: TaskTokens, cache: PromptCache, hidden_1TD: torch.Tensor) -> Solution:
        """Writes the likeliest token at each free position, and reads the given ones between them."""
        found, pending = list[int](), list[int]()
        for token_id, is_free in zip(tokens.canvas.tolist(), tokens.is_free.tolist(), strict=True):
            if is_free:
                if pending:
                    hidden_1TD = self._encode(pending, cache)
                    pending = []
                logits_1V = self._model.logits(hidden_1TD[:, -1:])[0]
                logits_1V[:, self._suppressed] = -torch.inf
                token_id = int(logits_1V.argmax())
                found.append(token_id)
            pending.append(token_id)
        return Solution(ids=found, steps=len(found))

    def _encode(self, ids: Sequence[int], cache: PromptCache) -> torch.Tensor:
        return self._model.encode(torch.tensor([list(ids)], device=self._model.device), cache)
