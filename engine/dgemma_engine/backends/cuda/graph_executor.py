"""Denoising steps that are captured in CUDA graphs once and replayed.

The host keeps the small values: the rows on the canvas, their random draws, the temperature and four short rows of
scores; the rest stays on the device. Shape legend as in `step_buffers.py`; M positions of the longest free part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dgemma_engine.backends.cuda.step_buffers import NO_ROW, StepShape
from dgemma_engine.backends.cuda.step_graphs import StepGraphs
from dgemma_engine.diffusion.canvas import Canvas, CanvasLayout
from dgemma_engine.diffusion.sampler import PositionScores, Sampler
from dgemma_engine.model.kv_cache import PromptCache

_CPU = torch.device("cpu")
_NOTHING_SUPPRESSED = -1


class GraphExecutor:
    """See `StepExecutor`; its layout and scores are on the CPU.

    Args:
        graphs: of the model; executors that take turns each keep their canvas while another has the tensors.
        cache: the prompt; only read, except that the block is added.
        canvas: its rows, first tokens and generators.
        sampler: the decisions.
        suppressed_ids: token ids that may not appear at any position, int64 [any]; may be empty.
        block_ids: tokens that the first pass adds to the cache: the block before this canvas.

    Attributes:
        layout: see `StepExecutor.layout`.
    """

    def __init__(
        self,
        graphs: StepGraphs,
        cache: PromptCache,
        canvas: Canvas,
        sampler: Sampler,
        *,
        suppressed_ids: Tensor,
        block_ids: Sequence[int] = (),
    ) -> None:
        self._graphs, self._cache, self._canvas, self._sampler = graphs, cache, canvas, sampler
        self._suppressed_V = torch.zeros(graphs.model.config.vocab_size, dtype=torch.bool)
        self._suppressed_V[[*suppressed_ids.tolist(), *sampler.noise.suppressed_ids]] = True
        self._block_ids = list(block_ids)
        self._temperature = 1.0
        self._copied: Callable[[], Tensor] | None = None
        self._confidence: list[list[float]] = []
        self._is_renoised = True
        self._scored_ids_L: Tensor | None = None
        self._aside: tuple[Tensor, Tensor, Tensor] | None = None
        graphs.give_to(self)
        self._write(canvas.ids_1L[0], None)

    def tokens(self) -> Tensor:
        """See `StepExecutor.tokens`; the next canvas may exist already, but is not returned before `renoise`."""
        if self._scored_ids_L is not None:
            return self._scored_ids_L[None]
        self._take_over()
        return self._view.ids_L[None, : self._length].cpu()

    def forward(self, temperature: float, *, steps_left: int) -> None:
        """See `StepExecutor.forward`; the distributions of clamped positions are computed on every step."""
        self._take_over()
        view, length = self._view, self._length
        self._temperature = temperature
        view.levels_L[:length].copy_(self._canvas.draw_levels()[0, :, 0])
        view.temperature_1.fill_(temperature)
        self._graphs.forward(self._shape, view, self._cache, self._sampler.noise)
        self._copied = self._graphs.read(view)
        # The next canvas's noise is drawn while the device works.
        view.noise_L[:length].copy_(self._canvas.draw_noise()[0])
        if self._block_ids:
            self._cache.advance(len(self._block_ids))
            self._block_ids = []
            self._place()
        self._is_renoised = False
        if steps_left and self._graphs.renoises_ahead:
            # The device goes on while the host decides; a run that ends here has made one canvas too many.
            self._renoise_once()

    def score(self) -> PositionScores:
        """See `StepExecutor.score`."""
        assert self._copied is not None, "no forward pass to score"
        scores_4L, self._copied = self._copied(), None
        layout = self.layout
        self._scored_ids_L = scores_4L[3, : self._length].long()
        answer_RM, entropy_RM, confidence_RM, ids_RM = (row_L[layout.free_RM] for row_L in scores_4L)
        self._confidence = [
            values_M[: row.num_free].tolist()
            for values_M, row in zip(confidence_RM.view(torch.float32), layout.rows, strict=True)
        ]
        return PositionScores(
            best_RM=answer_RM.long(),
            entropy_RM=entropy_RM.view(torch.float32),
            valid_RM=layout.valid_RM,
            committed_RM=self._sampler.noise.committed(ids_RM),
        )

    def confidence(self, place: int) -> list[float]:
        """See `StepExecutor.confidence`."""
        return self._confidence[place]

    def log_probabilities(self, place: int) -> Tensor:
        """See `StepExecutor.log_probabilities`; as exact as the weights' dtype."""
        positions = self.layout.free_RM[place, : self.layout.rows[place].num_free].to(self._view.logits_LV.device)
        return (self._view.logits_LV[positions].float().log() * self._temperature).log_softmax(-1)

    @torch.inference_mode()
    def renoise(self) -> Tensor:
        """See `StepExecutor.renoise`."""
        self._take_over()
        self._scored_ids_L = None
        self._renoise_once()
        num_rows, most = self.layout.free_RM.shape
        return self._view.accepted_RL[:num_rows, :most]

    @torch.inference_mode()
    def set_aside(self) -> None:
        """Copies the tensors that another executor will overwrite; renoises first, which needs the distributions."""
        self._renoise_once()
        view, length = self._view, self._length
        self._aside = view.ids_L[:length].clone(), view.soft_LD[:length].clone(), view.accepted_RL.clone()

    def select_rows(self, places: Sequence[int]) -> None:
        """See `StepExecutor.select_rows`."""
        self._take_over()
        staying = torch.isin(self.layout.row_L, torch.tensor(places)).nonzero()[:, 0].to(self._view.ids_L.device)
        # Read before the buffers are rewritten: both shapes lie in the same memory.
        ids_L, soft_LD = self._view.ids_L[staying], self._view.soft_LD[staying]
        self._canvas = self._canvas.select_rows(places)
        self._write(ids_L, soft_LD)

    @torch.inference_mode()
    def _renoise_once(self) -> None:
        """Makes the next canvas of the last scores, unless it was made."""
        if not self._is_renoised:
            self._graphs.renoise(self._shape, self._view, self._sampler)
            self._is_renoised = True

    def _take_over(self) -> None:
        """Takes the shared tensors back and restores this executor's content."""
        self._graphs.give_to(self)
        if self._aside is not None:
            (ids_L, soft_LD, accepted_RL), self._aside = self._aside, None
            self._write(ids_L, soft_LD)
            self._view.accepted_RL.copy_(accepted_RL)

    @torch.inference_mode()
    def _write(self, ids_L: Tensor, soft_LD: Tensor | None) -> None:
        """Writes the values that stay the same until a row leaves, and the rows' tokens."""
        self.layout = layout = CanvasLayout(self._canvas.layout.rows, _CPU)
        self._length = length = len(layout.row_L)
        sets, set_of_L = self._suppressed_sets()
        self._num_sets = len(sets)
        self._place()
        view = self._view
        # Stale values of a longer canvas, after this one, must belong to no row.
        for tensor, values, filler in (
            (view.ids_L, ids_L, 0),
            (view.given_L, layout.given_1L[0], 0),
            (view.fixed_L, layout.fixed_1L[0], True),
            (view.row_L, layout.row_L, NO_ROW),
            (view.offset_L, layout.offset_L, 0),
            (view.set_of_L, set_of_L, _NOTHING_SUPPRESSED),
        ):
            tensor[:length].copy_(values)
            tensor[length:].fill_(filler)
        view.soft_LD.zero_()
        if soft_LD is not None:
            view.soft_LD[:length].copy_(soft_LD)
        num_rows, most = layout.free_RM.shape
        view.free_RL.fill_(self._shape.length)
        view.valid_RL.fill_(value=False)
        view.free_RL[:num_rows, :most].copy_(layout.free_RM.where(layout.valid_RM, self._shape.length))
        view.valid_RL[:num_rows, :most].copy_(layout.valid_RM)
        for suppressed_V, target_V in zip(sets, view.banned_FV, strict=False):
            target_V.copy_(suppressed_V)

    def _place(self) -> None:
        """Chooses the tensors that fit the canvas, and writes the prompt's length."""
        num_block = len(self._block_ids)
        self._shape = StepShape.holding(len(self.layout.rows), self._length, num_block)
        self._view = view = self._graphs.view(self._shape, self._num_sets)
        view.num_stored_1.fill_(self._cache.length)
        view.num_before_1.fill_(self._cache.length + num_block)
        if num_block:
            view.block_T[:num_block].copy_(torch.tensor(self._block_ids))
            # A repeated token mostly chooses the same experts, so padding reads few further weights.
            view.block_T[num_block:].fill_(self._block_ids[-1])

    def _suppressed_sets(self) -> tuple[list[Tensor], Tensor]:
        """Returns the sets of tokens that some position may not hold, [V] each, and the set of each position, [L]."""
        limits: dict[int, list[tuple[int, ...]]] = {}
        for position, ids in self.layout.limits:
            limits.setdefault(position, []).append(ids)
        sets, known = [self._suppressed_V], dict[tuple[tuple[int, ...], ...], int]()
        set_of_L = torch.zeros(self._length, dtype=torch.int32)
        for position, allowed in limits.items():
            key = tuple(allowed)
            if key not in known:
                known[key] = len(sets)
                barred_V = torch.zeros_like(self._suppressed_V)
                for ids in key:
                    others_V = torch.ones_like(self._suppressed_V)
                    others_V[list(ids)] = False
                    barred_V |= others_V
                whole_V = barred_V | self._suppressed_V
                # Every position keeps a token.
                sets.append(barred_V if bool(whole_V.all()) else whole_V)
            set_of_L[position] = known[key]
        return sets, set_of_L
