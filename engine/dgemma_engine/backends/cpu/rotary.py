"""Rotary factors of a processor's passes, as tables that positions are looked up in.

Shape legend: N tokens of a pass, d head size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_engine.model.config import LayerKind
from dgemma_engine.model.rotary import RotaryDimensions, inverse_frequencies


@dataclass(frozen=True, slots=True, kw_only=True)
class RotaryCosSin:
    """Rotary factors of some positions, [N, 1, d] float32 each: `x * cos + roll(x, d / 2) * sin`."""

    cos: Tensor
    sin: Tensor


def rotary_tables(config: RotaryDimensions, size: int) -> dict[LayerKind, RotaryCosSin]:
    """Returns the factors of each layer kind for the first `size` positions."""
    return {kind: _rotary(inverse_frequencies(rope, config.head_dim[kind]), size) for kind, rope in config.rope.items()}


def _rotary(frequencies: Tensor, size: int) -> RotaryCosSin:
    angles = torch.arange(size, dtype=torch.float32)[:, None] * frequencies
    sin = angles.sin()
    return RotaryCosSin(cos=angles.cos().repeat(1, 2)[:, None], sin=torch.cat((-sin, sin), dim=1)[:, None])
