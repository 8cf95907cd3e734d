"""Denoising steps without host synchronisation, so that CUDA graphs can capture them: `forward`, then `renoise`.

Both take everything from a `StepView` and leave everything there, so each is captured once per shape and replayed,
whatever the prompt. They compute what `diffusion/eager_executor.py` computes (docs/decisions/0023). Between them the
host reads a few short rows, decides which rows go on, and draws.

Shape legend: R rows, L positions, V vocabulary, D hidden.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Protocol

import torch
from dgemma_kernels.tensors.formats import Rows
from dgemma_kernels.tensors.vocabulary_distribution import Banned
from torch import Tensor

from dgemma_engine.backends.cuda.graphs import Graphs
from dgemma_engine.backends.cuda.kv_table import Stores
from dgemma_engine.backends.cuda.model import FusedModel
from dgemma_engine.backends.cuda.step_buffers import NO_ROW, StepBuffers, StepShape, StepView
from dgemma_engine.diffusion.sampler import ClampedConditioning, Noise, PositionScores, Sampler
from dgemma_engine.model.kv_cache import PromptCache

# Sets of suppressed tokens that there is room for at first: one for all positions, others for first and last ones.
_FIRST_SETS = 16


class BufferUser(Protocol):
    """An executor whose steps use the same tensors as those of others."""

    def set_aside(self) -> None:
        """Copies the content that it still needs out of the shared tensors."""
        ...


class StepGraphs:
    """Captured steps of one model.

    Args:
        model: with fused operations.
        graphs: the captured work.

    Attributes:
        model: see above.
        renoises_ahead: whether a step's next canvas is made before the host has the step's scores.
    """

    def __init__(self, model: FusedModel, graphs: Graphs) -> None:
        self.model = model
        self.renoises_ahead = model.renoises_ahead
        self._graphs = graphs
        self._buffers: StepBuffers | None = None
        # A weak reference: an executor that was dropped has nothing to set aside.
        self._user: weakref.ref[BufferUser] | None = None

    def give_to(self, user: BufferUser) -> None:
        """Gives an executor the tensors; the one that had them sets its canvas aside first."""
        last = self._user() if self._user is not None else None
        if last is not None and last is not user:
            last.set_aside()
        self._user = weakref.ref(user)

    def view(self, shape: StepShape, num_sets: int) -> StepView:
        """Returns the tensors of a shape; valid until a larger one is asked for.

        Args:
            shape: of the steps to come.
            num_sets: of suppressed tokens.
        """
        if self._buffers is None or not self._buffers.holds(shape, num_sets):
            self._buffers = self._grown(shape, num_sets)
        return self._buffers.view(shape)

    def forward(self, shape: StepShape, view: StepView, cache: PromptCache, noise: Noise) -> None:
        """Scores every position; the block joins the prompt, whose length the caller advances."""
        stores = self.model.stores(cache, shape.num_block + shape.length)
        key = ("forward", shape.length, shape.num_block, noise)
        self._graphs.run(key, lambda: forward(self.model, view, stores, noise))

    def renoise(self, shape: StepShape, view: StepView, sampler: Sampler) -> None:
        """Turns the last scores into the next canvas."""
        key = ("renoise", shape.num_rows, shape.length, sampler.acceptance, sampler.noise, sampler.clamped_conditioning)
        self._graphs.run(key, lambda: renoise(self.model, view, sampler))

    def read(self, view: StepView) -> Callable[[], Tensor]:
        """Starts to copy the scores to the host; returns a function that waits for them, [4, L] int32."""
        if view.scores_4L.device.type != "cuda":
            scores_4L = view.scores_4L.clone()
            return lambda: scores_4L
        host_4L = torch.empty(view.scores_4L.shape, dtype=torch.int32, pin_memory=True)
        host_4L.copy_(view.scores_4L, non_blocking=True)
        # Waiting sleeps, or it would keep a core busy for the length of every step.
        copied = torch.cuda.Event(blocking=True)
        copied.record()

        def wait() -> Tensor:
            copied.synchronize()
            return host_4L

        return wait

    def clear(self) -> None:
        """Releases all memory but the model's, and the part that the current executor still needs."""
        self._forget()
        last, self._user = self._user() if self._user is not None else None, None
        if last is not None:
            last.set_aside()

    def _forget(self) -> None:
        self._graphs.clear()
        self._buffers = None

    def _grown(self, shape: StepShape, num_sets: int) -> StepBuffers:
        """Returns buffers for this shape and all earlier ones; releases the old buffers and their graphs."""
        config, old = self.model.config, self._buffers
        least = old.shape if old else StepShape.holding(8, config.canvas_length, config.canvas_length)
        sizes = StepShape(
            num_rows=max(shape.num_rows, least.num_rows),
            length=max(shape.length, least.length),
            num_block=max(shape.num_block, least.num_block),
        )
        num_sets = max(num_sets, old.num_sets if old else _FIRST_SETS)
        del old
        self._forget()
        return StepBuffers(
            sizes,
            num_sets,
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            dtype=self.model.dtype,
            device=self.model.device,
        )


def forward(model: FusedModel, view: StepView, stores: Stores, noise: Noise) -> None:
    """Scores every position of a canvas, in place, see `StepView`: distribution, a draw, and what the host reads."""
    num_block = len(view.block_T)
    position_L, row_L = view.num_before_1 + view.offset_L, view.row_L
    if num_block:
        block_T = torch.arange(num_block, dtype=torch.int32, device=model.device)
        position_L = torch.cat((view.num_stored_1 + block_T, position_L))
        num_block_1 = view.num_before_1 - view.num_stored_1
        row_L = torch.cat((torch.where(block_T < num_block_1, 0, NO_ROW).int(), row_L))
    metadata = model.metadata(
        num_causal=num_block,
        row_N=row_L,
        position_N=position_L,
        num_visible_1=view.num_stored_1,
        num_stored_1=view.num_stored_1,
        num_before_canvas_1=view.num_before_1,
        canvas_start_1=view.num_stored_1 + num_block,
    )
    rows = model.run(model.input_states(view.block_T, view.ids_L, view.soft_LD), metadata, stores)
    model.vocabulary_logits(Rows(data_ND=rows.data_ND[num_block:]), view.logits_LV)
    banned = Banned(sets_RV=view.banned_FV, set_of_N=view.set_of_L)
    distribution = model.token_distribution(view.logits_LV, view.temperature_1, view.levels_L, banned)
    view.sampled_L.copy_(distribution.sampled_N)
    answer_L, confidence_L = distribution.best_N.long(), distribution.confidence_N
    committed_L = noise.committed(view.ids_L)
    if committed_L is not None:
        best_L, answer_L = answer_L, torch.where(committed_L, view.ids_L, answer_L)
        # Raised to the power of the step's temperature, its probabilities are proportional to those at temperature 1.
        ratio_L = _probability(view.logits_LV, answer_L) / _probability(view.logits_LV, best_L)
        confidence_L = confidence_L * ratio_L.pow(view.temperature_1)
    scores = (answer_L, distribution.entropy_N.view(torch.int32), confidence_L.view(torch.int32), view.ids_L)
    for target_L, values_L in zip(view.scores_4L, scores, strict=True):
        target_L.copy_(values_L)


def renoise(model: FusedModel, view: StepView, sampler: Sampler) -> None:
    """Accepts some positions, makes the others noise, and computes the self-conditioning signal, in place."""
    # Padding is written to one extra place after the last. Rows share no position, so nothing is written twice.
    free_RL = view.free_RL.clamp(max=len(view.ids_L) - 1)
    answer_L, entropy_L, _confidence_L, _ids_L = view.scores_4L
    committed_L = sampler.noise.committed(view.ids_L)
    scores = PositionScores(
        best_RM=answer_L.long()[free_RL],
        entropy_RM=entropy_L.view(torch.float32)[free_RL],
        valid_RM=view.valid_RL,
        committed_RM=None if committed_L is None else committed_L[free_RL],
    )
    view.accepted_RL.copy_(sampler.acceptance.accept(scores) & view.valid_RL)
    accepted_L = torch.zeros(len(view.ids_L) + 1, dtype=torch.bool, device=model.device)
    accepted_L.scatter_(0, view.free_RL.flatten(), view.accepted_RL.flatten())
    token_L = view.sampled_L.long()
    if committed_L is not None:
        token_L = torch.where(committed_L, view.ids_L, token_L)
    next_L = torch.where(accepted_L[:-1], token_L, view.noise_L)
    view.ids_L.copy_(torch.where(view.fixed_L, view.given_L, next_L))
    soft_LD = model.expected_embeddings(view.logits_LV)
    if sampler.clamped_conditioning is ClampedConditioning.GIVEN:
        soft_LD = torch.where(view.fixed_L[:, None], model.embed(view.given_L), soft_LD)
    elif sampler.clamped_conditioning is ClampedConditioning.NOTHING:
        soft_LD = soft_LD.masked_fill(view.fixed_L[:, None], 0.0)
    view.soft_LD.copy_(soft_LD)


def _probability(probs_LV: Tensor, ids_L: Tensor) -> Tensor:
    """Returns the probability of one token of each position, [L], float32."""
    return probs_LV.gather(-1, ids_L[:, None])[:, 0].float()
