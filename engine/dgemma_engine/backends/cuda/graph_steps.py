"""Denoising steps as work on a device that asks nothing of the host: look at the canvas, then turn it into the next.

`look` and `advance` take everything from a `StepView` and leave everything there, so each is captured once per shape
and prompt store, and replayed. What they compute is what `diffusion/denoiser.py` computes with the policies
(docs/decisions/0023). Between them the host reads three short rows, decides which canvases go on, and draws.

Shape legend: R rows, L positions, V vocabulary, D hidden.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Protocol

import torch
from dgemma_kernels.tensors.formats import Rows
from dgemma_kernels.tensors.vocabulary_belief import Banned
from torch import Tensor

from dgemma_engine.backends.cuda.graphs import Graphs
from dgemma_engine.backends.cuda.model import FusedModel, Stores
from dgemma_engine.backends.cuda.step_buffers import StepBuffers, StepShape, StepView
from dgemma_engine.diffusion.sampler import ClampedBelief, Sampler
from dgemma_engine.model.kv_cache import PromptCache

# Sets of banned tokens that there is room for at first: one for all positions and a few for first and last ones.
_FIRST_SETS = 16


class SharingRun(Protocol):
    """A run whose steps use the same tensors as those of others."""

    def set_aside(self) -> None:
        """Keeps what it needs of them elsewhere."""
        ...


class CapturedSteps:
    """Steps of one model.

    Args:
        model: with fused operations.
        graphs: what was captured of them.
    """

    def __init__(self, model: FusedModel, graphs: Graphs) -> None:
        self.model = model
        self._graphs = graphs
        self._buffers: StepBuffers | None = None
        # Not kept alive: a run that nobody goes on with has nothing to lose.
        self._run: weakref.ref[SharingRun] | None = None

    def give_to(self, run: SharingRun) -> None:
        """Lets a run have the tensors; the one that had them puts its canvas aside first."""
        last = self._run() if self._run is not None else None
        if last is not None and last is not run:
            last.set_aside()
        self._run = weakref.ref(run)

    def view(self, shape: StepShape, num_sets: int) -> StepView:
        """Returns the tensors of a shape; valid until a larger one is asked for.

        Args:
            shape: of the steps to come.
            num_sets: of banned tokens.
        """
        if self._buffers is None or not self._buffers.holds(shape, num_sets):
            self._buffers = self._grown(shape, num_sets)
        return self._buffers.view(shape)

    def look(self, shape: StepShape, view: StepView, cache: PromptCache) -> None:
        """Judges every position; the block joins the prompt, whose length the caller counts on."""
        stores = self.model.stores(cache, shape.num_block + shape.length)
        places = tuple((k_GSd.data_ptr(), v_GSd.data_ptr(), k_GSd.shape[1]) for k_GSd, v_GSd in stores)
        self._graphs.run(("look", shape, places), lambda: look(self.model, view, stores))

    def advance(self, shape: StepShape, view: StepView, sampler: Sampler) -> None:
        """Turns the last look into the next canvas."""
        key = ("advance", shape, sampler.acceptance, sampler.clamped_belief)
        self._graphs.run(key, lambda: advance(self.model, view, sampler))

    def read(self, view: StepView) -> Callable[[], Tensor]:
        """Starts to copy what the host reads of a look; returns what waits for it and returns it, [3, L] int32."""
        if view.told_3L.device.type != "cuda":
            told_3L = view.told_3L.clone()
            return lambda: told_3L
        host_3L = torch.empty(view.told_3L.shape, dtype=torch.int32, pin_memory=True)
        host_3L.copy_(view.told_3L, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

        def wait() -> Tensor:
            copied.synchronize()
            return host_3L

        return wait

    def clear(self) -> None:
        """Lets go of all memory but the model's, and of what the run that has the tensors needs of them."""
        self._forget()
        last, self._run = self._run() if self._run is not None else None, None
        if last is not None:
            last.set_aside()

    def _forget(self) -> None:
        self._graphs.clear()
        self._buffers = None

    def _grown(self, shape: StepShape, num_sets: int) -> StepBuffers:
        """Returns buffers for this shape and all that were asked for before; what was captured on the old ones goes."""
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


def look(model: FusedModel, view: StepView, stores: Stores) -> None:
    """Judges every position of a canvas, in place, see `StepView`: belief, a draw from it, and what the host reads."""
    num_block = len(view.block_T)
    position_L, row_L = view.num_before_1 + view.offset_L, view.row_L
    if num_block:
        block_T = torch.arange(num_block, dtype=torch.int32, device=model.device)
        position_L = torch.cat((view.num_stored_1 + block_T, position_L))
        row_L = torch.cat((torch.zeros_like(block_T), row_L))
    sight = model.sight(
        num_causal=num_block,
        row_N=row_L,
        position_N=position_L,
        num_visible_1=view.num_stored_1,
        num_stored_1=view.num_stored_1,
        num_before_canvas_1=view.num_before_1,
    )
    rows = model.run(model.first_states(view.block_T, view.ids_L, view.soft_LD), sight, stores)
    model.score(Rows(data_ND=rows.data_ND[num_block:]), view.logits_LV)
    banned = Banned(sets_RV=view.banned_FV, set_of_N=view.set_of_L)
    belief = model.believe(view.logits_LV, view.temperature_1, view.levels_L, banned)
    view.sampled_L.copy_(belief.sampled_N)
    view.entropy_L[:-1].copy_(belief.entropy_N)
    best_L, entropy_L, confidence_L = view.told_3L
    best_L.copy_(belief.best_N)
    entropy_L.copy_(belief.entropy_N.view(torch.int32))
    confidence_L.copy_(belief.confidence_N.view(torch.int32))


def advance(model: FusedModel, view: StepView, sampler: Sampler) -> None:
    """Accepts what is sure enough, replaces the rest by noise, and tells every position what was believed of it."""
    accepted_RL = sampler.acceptance.accept(view.entropy_L[view.free_RL], view.valid_RL) & view.valid_RL
    # What is nowhere goes to one place more than there are. Rows share no position, so nothing is written twice.
    accepted_L = torch.zeros(len(view.ids_L) + 1, dtype=torch.bool, device=model.device)
    accepted_L.scatter_(0, view.free_RL.flatten(), accepted_RL.flatten())
    drawn_L = torch.where(accepted_L[:-1], view.sampled_L.long(), view.noise_L)
    view.ids_L.copy_(torch.where(view.fixed_L, view.given_L, drawn_L))
    soft_LD = model.expect(view.logits_LV)
    if sampler.clamped_belief is ClampedBelief.GIVEN:
        soft_LD = torch.where(view.fixed_L[:, None], model.embed(view.given_L), soft_LD)
    elif sampler.clamped_belief is ClampedBelief.NOTHING:
        soft_LD = soft_LD.masked_fill(view.fixed_L[:, None], 0.0)
    view.soft_LD.copy_(soft_LD)
