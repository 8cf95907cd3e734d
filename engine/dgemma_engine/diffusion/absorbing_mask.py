"""Policies of masked diffusion: noise is one token, positions are committed surest first, and may be masked again.

With an absorbing mask a committed token is normally final. With `SurestFirst` the least sure committed tokens may
become masks again at each step, up to a budget, so that a later step can correct an early one.

Shape legend: R rows, M positions of the longest free part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dgemma_engine.diffusion.sampler import PositionScores


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsorbingMask:
    """Noise is the mask token, and no step proposes that.

    Attributes:
        mask_id: of the mask token.
    """

    mask_id: int

    @property
    def suppressed_ids(self) -> Sequence[int]:
        """See `Noise.suppressed_ids`."""
        return (self.mask_id,)

    def draw(self, num_rows: int, length: int, generator: torch.Generator) -> Tensor:
        """See `Noise.draw`; nothing is random."""
        return torch.full((num_rows, length), self.mask_id, device=generator.device)

    def committed(self, ids: Tensor) -> Tensor:
        """See `Noise.committed`."""
        return ids != self.mask_id


@dataclass(frozen=True, slots=True, kw_only=True)
class SurestFirst:
    """Commits the masked positions with the lowest entropy, and masks the committed ones with the highest again.

    Attributes:
        num_tokens: masked positions that get a token at each step; 1 is slow and careful, M commits all at once.
        num_remasked: most committed positions that are masked again at each step; 0 makes every commitment final.
        remask_entropy: nats; committed positions below it are kept. 0 spends the whole budget, large none of it.
    """

    num_tokens: int
    num_remasked: int = 0
    remask_entropy: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.num_remasked < self.num_tokens:
            raise ValueError(f"{self.num_tokens=} must be > {self.num_remasked=} >= 0")
        if self.remask_entropy < 0:
            raise ValueError(f"{self.remask_entropy=} must be >= 0")

    def accept(self, scores: PositionScores) -> Tensor:
        """See `Acceptance.accept`; needs noise that can be told from tokens."""
        committed_RM = scores.committed_RM
        assert committed_RM is not None, "masks can be told from tokens"
        is_masked_RM, is_kept_RM = scores.valid_RM & ~committed_RM, scores.valid_RM & committed_RM
        surest_RM = _rank(scores.entropy_RM.masked_fill(~is_masked_RM, torch.inf)) < self.num_tokens
        unsure_RM = is_kept_RM & (scores.entropy_RM > self.remask_entropy)
        least_sure_RM = _rank(scores.entropy_RM.neg().masked_fill(~unsure_RM, torch.inf)) < self.num_remasked
        return (is_masked_RM & surest_RM) | (is_kept_RM & ~(unsure_RM & least_sure_RM))


@dataclass(frozen=True, slots=True, kw_only=True)
class EvenShare:
    """Commits an equal share of the masked positions at each step, the surest first; a commitment is final.

    Of 10 masks in 4 steps it commits 3, 3, 2 and 2: `get_num_transfer_tokens` of LLaDA's `generate.py`.

    Attributes:
        by: the measure of sureness: a low entropy (Dream's `entropy`), or a high probability of the likeliest token
            (LLaDA's `low_confidence`, Dream's `maskgit_plus`).
    """

    by: Literal["entropy", "probability"]

    def accept(self, scores: PositionScores) -> Tensor:
        """See `Acceptance.accept`; needs noise that can be told from tokens, and the steps left."""
        committed_RM, probability_RM = scores.committed_RM, scores.probability_RM
        assert committed_RM is not None and probability_RM is not None, "an executor of masked diffusion gives both"
        is_masked_RM = scores.valid_RM & ~committed_RM
        unsure_RM = scores.entropy_RM if self.by == "entropy" else -probability_RM
        is_surest_RM = _rank(unsure_RM.masked_fill(~is_masked_RM, torch.inf)) < _share(scores)
        return (is_masked_RM & is_surest_RM) | (scores.valid_RM & committed_RM)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastShare:
    """Stops a row at the step whose even share is all masked positions: its likeliest tokens are final.

    Attributes:
        expand_id: a token that becomes masks: a row goes on where the likeliest ones hold it; None for no such token.
    """

    expand_id: int | None = None

    @property
    def num_earlier(self) -> int:
        """See `StopRule.num_earlier`."""
        return 0

    def finished(self, earlier: Sequence[Tensor], scores: PositionScores) -> Tensor:
        """See `StopRule.finished`."""
        finished_R = (_num_masked(scores) <= _share(scores))[:, 0]
        if self.expand_id is not None:
            finished_R &= ((scores.best_RM != self.expand_id) | ~scores.valid_RM).all(-1)
        return finished_R


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockShare:
    """Commits the even share of a step within a row's first block with masks, the surest first; a commitment is final.

    For models that attend block by block: they were trained to read masks in the last block only. Where the block has
    fewer masks than the share, later steps commit more.

    Attributes:
        by: see `EvenShare`.
        block_tokens: positions of a block; blocks are counted from the beginning of the text.
    """

    by: Literal["entropy", "probability"]
    block_tokens: int

    def accept(self, scores: PositionScores) -> Tensor:
        """See `Acceptance.accept`; needs what `EvenShare` needs, and positions."""
        assert scores.committed_RM is not None and scores.probability_RM is not None
        is_open_RM = _first_block(scores, self.block_tokens)
        unsure_RM = scores.entropy_RM if self.by == "entropy" else -scores.probability_RM
        is_surest_RM = _rank(unsure_RM.masked_fill(~is_open_RM, torch.inf)) < _share(scores)
        return (is_open_RM & is_surest_RM) | (scores.valid_RM & scores.committed_RM)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndInBlock:
    """Stops a row at the step after which nothing is masked up to its first end token, or nothing at all.

    Positions after an end token are no text.

    Attributes:
        acceptance: what a step commits.
        end_ids: tokens that end a text.
    """

    acceptance: BlockShare
    end_ids: tuple[int, ...]

    @property
    def num_earlier(self) -> int:
        """See `StopRule.num_earlier`."""
        return 0

    def finished(self, earlier: Sequence[Tensor], scores: PositionScores) -> Tensor:
        """See `StopRule.finished`."""
        settled_RM = self.acceptance.accept(scores) | ~scores.valid_RM
        is_end_RM = torch.isin(scores.best_RM, scores.best_RM.new_tensor(self.end_ids)) & scores.valid_RM
        is_text_RM = (is_end_RM.cumsum(-1) - is_end_RM.long()) == 0
        return (settled_RM | ~is_text_RM).all(-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingMasked:
    """Stops a row in which every position is committed."""

    @property
    def num_earlier(self) -> int:
        """See `StopRule.num_earlier`."""
        return 0

    def finished(self, earlier: Sequence[Tensor], scores: PositionScores) -> Tensor:
        """See `StopRule.finished`."""
        assert scores.committed_RM is not None, "masks can be told from tokens"
        return (scores.committed_RM | ~scores.valid_RM).all(-1)


def _num_masked(scores: PositionScores) -> Tensor:
    """Returns how many positions of each row hold a mask, [R, 1]."""
    assert scores.committed_RM is not None, "masks can be told from tokens"
    return (scores.valid_RM & ~scores.committed_RM).sum(-1, keepdim=True)


def _share(scores: PositionScores) -> Tensor:
    """Returns how many masks of each row a step commits, so that equal shares leave none, [R, 1]."""
    num_steps = scores.steps_left + 1
    return (_num_masked(scores) + num_steps - 1) // num_steps


def _first_block(scores: PositionScores, block_tokens: int) -> Tensor:
    """Returns the masked positions that stand in the first block with any of each row, [R, M]."""
    assert scores.committed_RM is not None and scores.position_RM is not None, "an executor of blocks gives both"
    is_masked_RM = scores.valid_RM & ~scores.committed_RM
    block_RM = scores.position_RM // block_tokens
    first_R1 = block_RM.masked_fill(~is_masked_RM, torch.iinfo(block_RM.dtype).max).amin(-1, keepdim=True)
    return is_masked_RM & (block_RM == first_R1)


def _rank(values_RM: Tensor) -> Tensor:
    """Returns the place of each value in the ascending order of its row, from 0."""
    return values_RM.argsort(dim=-1).argsort(dim=-1)
