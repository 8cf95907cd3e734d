"""The canvas of one hole: free positions, then the clamped head of the suffix. Built from token ids, read as token ids.

Shape legend: B rows, L canvas positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_engine.policies import UniformNoise


@dataclass(slots=True, kw_only=True)
class Canvas:
    """Token ids being denoised.

    Attributes:
        ids_BL: current tokens, int64; replaced at every step.
        given_BL: the clamped tokens at fixed positions, anything elsewhere.
        fixed_BL: bool, True where text is given and never resampled.
    """

    ids_BL: Tensor
    given_BL: Tensor
    fixed_BL: Tensor

    @property
    def free_BL(self) -> Tensor:
        """Positions the sampler decides."""
        return ~self.fixed_BL

    def replace(self, ids_BL: Tensor) -> None:
        """Takes new tokens at free positions and writes the given ones back everywhere else."""
        self.ids_BL = torch.where(self.fixed_BL, self.given_BL, ids_BL)


def build(slot_size: int, suffix_head_ids: list[int], noise: UniformNoise, generator: torch.Generator) -> Canvas:
    """Returns a canvas of one row: `slot_size` noisy free positions, then the suffix head.

    Args:
        slot_size: free positions, at least 1.
        suffix_head_ids: clamped tokens; empty when nothing follows the hole.
        noise: where the free tokens come from.
        generator: random draws, and the device of the canvas.
    """
    if slot_size < 1:
        raise ValueError(f"{slot_size=} must be at least 1")
    length = slot_size + len(suffix_head_ids)
    ids_BL = noise.draw(1, length, generator)
    given_BL = torch.tensor([[0] * slot_size + suffix_head_ids], dtype=torch.int64, device=ids_BL.device)
    fixed_BL = torch.arange(length, device=ids_BL.device)[None] >= slot_size
    canvas = Canvas(ids_BL=ids_BL, given_BL=given_BL, fixed_BL=fixed_BL)
    canvas.replace(ids_BL)
    return canvas


@dataclass(frozen=True, slots=True, kw_only=True)
class Middle:
    """What stands in a slot.

    Attributes:
        ids: tokens before the one that ended it.
        ended: whether a fill or end token did; False when the slot was too short.
    """

    ids: list[int]
    ended: bool


def read(slot_ids: list[int], end_ids: frozenset[int], more_token_id: int | None) -> Middle:
    """Reads the middle out of a slot.

    Args:
        slot_ids: best guess of the free positions.
        end_ids: tokens that end a middle (fill, end of file); empty for a checkpoint that has none.
        more_token_id: says that the middle goes on past the slot; dropped.
    """
    for index, token_id in enumerate(slot_ids):
        if token_id in end_ids:
            return Middle(ids=slot_ids[:index], ended=True)
        if token_id == more_token_id:
            return Middle(ids=slot_ids[:index], ended=False)
    return Middle(ids=slot_ids, ended=not end_ids)
