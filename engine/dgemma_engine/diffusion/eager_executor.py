"""Denoising steps operation by operation, on any device and with any `DiffusionModel`.

Shape legend: R rows, L positions of all rows together, M positions of the longest free part, N scored positions (free
ones first), D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_engine.diffusion.absorbing_mask import AbsorbingMask
from dgemma_engine.diffusion.canvas import Canvas
from dgemma_engine.diffusion.pass_queue import PassQueue, PendingPass
from dgemma_engine.diffusion.resizing import Resizing
from dgemma_engine.diffusion.sampler import ClampedConditioning, Commitment, PositionScores, Sampler
from dgemma_engine.diffusion.token_distribution import TokenDistribution, VocabularyScorer, confidence, sample
from dgemma_engine.model import attention_masks
from dgemma_engine.model.attention_masks import ALL_VISIBLE
from dgemma_engine.model.canvas_pass import CanvasPass
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import KVCache


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scored:
    """The last scored step; outlives the rows that leave after it.

    Attributes:
        distribution: of the scored positions.
        scores: made of it.
        free_RM: where each row's free positions are among the scored ones.
        num_free: of each row.
        temperature: of the step.
        committed_probability_RM: of committed tokens, when they were committed; None where tokens may change.
    """

    distribution: TokenDistribution
    scores: PositionScores
    free_RM: Tensor
    num_free: list[int]
    temperature: float
    committed_probability_RM: Tensor | None


class EagerExecutor:
    """See `StepExecutor`.

    Args:
        model: called once a step.
        cache: the prompt; only read, except that the block is added.
        canvas: changed in place.
        sampler: the decisions.
        suppressed_ids: token ids that may not appear at any position, int64 [any]; may be empty.
        block_ids: tokens that the first pass adds to the cache: the block before this canvas.
        queue: of passes of the same model, which are made with those of other runs; None makes each alone.

    Attributes:
        layout: see `StepExecutor.layout`.
    """

    def __init__(
        self,
        model: DiffusionModel,
        cache: KVCache,
        canvas: Canvas,
        sampler: Sampler,
        *,
        suppressed_ids: Tensor,
        block_ids: Sequence[int] = (),
        queue: PassQueue | None = None,
    ) -> None:
        noise_ids = suppressed_ids.new_tensor(sampler.noise.suppressed_ids)
        self._model, self._cache, self._canvas, self._sampler = model, cache, canvas, sampler
        self._scorer = VocabularyScorer(model, suppressed_ids=torch.cat((suppressed_ids, noise_ids)))
        self._block_ids = list(block_ids)
        self._num_past = cache.length + len(block_ids)
        self._temperature = 1.0
        self._steps_left = 0
        self._soft_1LD: Tensor | None = None
        # Probability of each final commitment; 0 at other positions.
        self._probability_1L = torch.zeros_like(canvas.ids_1L, dtype=torch.float32)
        self._queue = PassQueue(model) if queue is None else queue
        # The states of the last forward pass, or where they will be; and the positions that are scored.
        self._hidden_1LD: PendingPass | Tensor | None = None
        self._wanted_N = canvas.layout.row_L
        self._scored: _Scored | None = None
        self._precompute()

    def tokens(self) -> Tensor:
        """See `StepExecutor.tokens`."""
        return self._canvas.ids_1L

    def forward(self, temperature: float, *, steps_left: int) -> None:
        """See `StepExecutor.forward`; a pass without a block is made when it is scored, see `PassQueue`."""
        canvas_1L, block_ids, self._block_ids = self._canvas.ids_1L, self._block_ids, []
        if block_ids:
            # The block before the canvas joins the cache once.
            self._hidden_1LD = self._model.decode_after(
                torch.tensor([block_ids], device=canvas_1L.device),
                canvas_1L,
                self._cache,
                soft_BLD=self._soft_1LD,
                positions_BL=self._positions_1L,
                attention_masks=self._attention_masks,
            )
        else:
            self._hidden_1LD = self._queue.add(
                CanvasPass(
                    canvas_1L=canvas_1L,
                    cache=self._cache,
                    soft_1LD=self._soft_1LD,
                    positions_1L=self._positions_1L,
                    attention_masks=self._attention_masks,
                )
            )
        self._wanted_N = self._scored_N if steps_left else self._scored_N[: self._num_free]
        self._temperature, self._steps_left = temperature, steps_left

    def score(self) -> PositionScores:
        """See `StepExecutor.score`."""
        hidden_1LD, self._hidden_1LD = self._hidden_1LD, None
        assert hidden_1LD is not None, "no forward pass to score"
        if isinstance(hidden_1LD, PendingPass):
            hidden_1LD = self._queue.read(hidden_1LD)
        hidden_ND = hidden_1LD[0, self._wanted_N]
        layout, suppressed, resizing = self.layout, self._suppressed, self._sampler.resizing
        if resizing is not None:
            suppressed = [*suppressed, *self._suppressed_expansions(resizing)]
        distribution = self._scorer.score(hidden_ND, self._temperature, suppressed, num_read=self._num_free)
        best_RM, committed_RM, probability_RM = distribution.best_N[self._free_RM], None, None
        committed_1L = self._sampler.noise.committed(self._canvas.ids_1L)
        if committed_1L is not None:
            best_N1 = distribution.best_N[:, None]
            probability_RM = distribution.probs_NV[: len(best_N1)].gather(-1, best_N1)[self._free_RM, 0]
            committed_RM = committed_1L[0, layout.free_RM]
            best_RM = torch.where(committed_RM, self._canvas.ids_1L[0, layout.free_RM], best_RM)
        scores = PositionScores(
            best_RM=best_RM,
            entropy_RM=distribution.entropy_N[self._free_RM],
            valid_RM=layout.valid_RM,
            committed_RM=committed_RM,
            probability_RM=probability_RM,
            position_RM=self._positions_1L[0, layout.free_RM],
            steps_left=self._steps_left,
        )
        is_final = self._sampler.commitment is Commitment.FINAL
        self._scored = _Scored(
            distribution=distribution,
            scores=scores,
            free_RM=self._free_RM,
            num_free=[row.num_free for row in layout.rows],
            temperature=self._temperature,
            committed_probability_RM=self._probability_1L[0, layout.free_RM] if is_final else None,
        )
        return scores

    def confidence(self, place: int) -> list[float]:
        """See `StepExecutor.confidence`."""
        scored = self._scored
        assert scored is not None, "no step was scored"
        scaled_MV = scored.distribution.scaled_NV[scored.free_RM[place, : scored.num_free[place]]]
        ids_M = scored.scores.best_RM[place, : len(scaled_MV)]
        confidence_M = confidence(scaled_MV, scored.temperature, ids_M)
        if scored.committed_probability_RM is not None:
            committed_RM = scored.scores.committed_RM
            assert committed_RM is not None, "what is final can be told from noise"
            known_M = scored.committed_probability_RM[place, : len(ids_M)]
            confidence_M = torch.where(committed_RM[place, : len(ids_M)], known_M, confidence_M)
        return confidence_M.tolist()

    def log_probabilities(self, place: int) -> Tensor:
        """See `StepExecutor.log_probabilities`."""
        scored = self._scored
        assert scored is not None, "no step was scored"
        scaled_MV = scored.distribution.scaled_NV[scored.free_RM[place, : scored.num_free[place]]]
        return (scaled_MV * scored.temperature).log_softmax(-1)

    def renoise(self) -> Tensor:
        """See `StepExecutor.renoise`."""
        scored, canvas, layout = self._scored, self._canvas, self.layout
        assert scored is not None, "no step was scored"
        levels_1L1 = canvas.draw_levels()
        accepted_RM = self._sampler.acceptance.accept(scored.scores) & layout.valid_RM
        ids_1L, drawn_RM, committed_RM = canvas.draw_noise(), accepted_RM, scored.scores.committed_RM
        if committed_RM is not None:
            drawn_RM = accepted_RM & ~committed_RM
            kept = layout.free_RM[accepted_RM & committed_RM]
            ids_1L[0, kept] = canvas.ids_1L[0, kept]
        drawn, distribution = layout.free_RM[drawn_RM], scored.distribution
        places = self._place_L[drawn]
        if self._sampler.commitment is Commitment.FINAL:
            ids_1L[0, drawn] = distribution.best_N[places]
            self._probability_1L[0, drawn] = confidence(
                distribution.scaled_NV[places], scored.temperature, ids_1L[0, drawn]
            )
        else:
            ids_1L[0, drawn] = sample(distribution.probs_NV[places], levels_1L1[0, drawn])
        canvas.replace(ids_1L)
        if self._model.has_self_conditioning:
            # The self-conditioning signal of the next step.
            rule, soft_1ND = (
                self._sampler.clamped_conditioning,
                self._model.soft_embeddings(scored.distribution.probs_NV[None]),
            )
            if rule is ClampedConditioning.OWN:
                assert soft_1ND.shape[1] == len(self._scored_N), "a step after the last one"
                self._soft_1LD = soft_1ND[:, self._place_L]
            else:
                self._soft_1LD = soft_1ND.new_zeros(1, layout.row_L.shape[0], soft_1ND.shape[-1])
                if rule is ClampedConditioning.GIVEN:
                    self._soft_1LD = self._model.embed(layout.given_1L)
                self._soft_1LD[:, self._scored_N] = soft_1ND
        if self._sampler.resizing is not None:
            self._resize(self._sampler.resizing)
        return accepted_RM

    def select_rows(self, places: Sequence[int]) -> None:
        """See `StepExecutor.select_rows`."""
        row_L = self.layout.row_L
        self._probability_1L = torch.cat([self._probability_1L[:, row_L == place] for place in places], dim=1)
        if self._soft_1LD is not None:
            self._soft_1LD = self._soft_1LD[:, torch.isin(row_L, torch.tensor(places, device=row_L.device))]
        self._canvas = self._canvas.select_rows(places)
        self._precompute()

    def _resize(self, resizing: Resizing) -> None:
        """Gives each row the length that its committed tokens ask for."""
        noise, layout, ids_L = self._sampler.noise, self.layout, self._canvas.ids_1L[0]
        assert isinstance(noise, AbsorbingMask), "rows change their length in masked diffusion only"
        free_ids = [ids_L[free_M[: row.num_free]] for row, free_M in zip(layout.rows, layout.free_RM, strict=True)]
        places = [resizing.places(ids_M.tolist(), noise.mask_id) for ids_M in free_ids]
        if all(taken == list(range(row.num_free)) for row, taken in zip(layout.rows, places, strict=True)):
            return
        self._canvas, source_L = self._canvas.resized(places)
        self._probability_1L = torch.where(source_L >= 0, self._probability_1L[:, source_L], 0.0)
        self._precompute()

    def _suppressed_expansions(self, resizing: Resizing) -> list[tuple[int, Tensor]]:
        """Returns the scored positions at which no row may ask to grow: of those without room, and at the last step."""
        expand_V = torch.zeros(self._model.config.vocab_size, dtype=torch.bool, device=self._canvas.ids_1L.device)
        expand_V[resizing.expand_id] = True
        return [
            (place, expand_V)
            for row, places in zip(self.layout.rows, self._free_RM.tolist(), strict=True)
            if not self._steps_left or row.num_free >= resizing.most_free
            for place in places[: row.num_free]
        ]

    def _precompute(self) -> None:
        """Computes what stays the same until a row leaves."""
        self.layout, config = self._canvas.layout, self._model.config
        layout = self.layout
        self._attention_masks = ALL_VISIBLE
        if len(layout.rows) > 1:
            self._attention_masks = attention_masks.packed(
                layout.row_L, num_past=self._num_past, sliding_window=config.sliding_window
            )
        self._positions_1L = (self._num_past + layout.offset_L)[None]
        free_L = ~layout.fixed_1L[0]
        free_N, fixed_N = free_L.nonzero()[:, 0], layout.fixed_1L[0].nonzero()[:, 0]
        self._num_free = len(free_N)
        # Free positions come first: of the others only the distributions are needed, for self-conditioning.
        is_own = self._model.has_self_conditioning and self._sampler.clamped_conditioning is ClampedConditioning.OWN
        self._scored_N = torch.cat((free_N, fixed_N)) if is_own else free_N
        self._place_L = torch.empty_like(layout.row_L)
        self._place_L[torch.cat((free_N, fixed_N))] = torch.arange(len(free_L), device=free_L.device)
        self._free_RM = self._place_L[layout.free_RM]
        self._suppressed: list[tuple[int, Tensor]] = []
        for position, ids in layout.limits:
            suppressed_V = torch.ones(config.vocab_size, dtype=torch.bool, device=free_L.device)
            suppressed_V[list(ids)] = False
            self._suppressed.append((int(self._place_L[position]), suppressed_V))
