"""Rotary factors of a processor's passes: computed once per position, then looked up.

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


class RotaryCache:
    """Rotary factors of each layer kind, computed once for every requested position.

    Args:
        config: frequencies and head sizes.
    """

    def __init__(self, config: RotaryDimensions) -> None:
        sizes = config.head_dim
        self._frequencies = {kind: inverse_frequencies(rope, sizes[kind]) for kind, rope in config.rope.items()}
        self._known = dict[LayerKind, RotaryCosSin]()
        self._size = 0

    def at(self, positions_N: Tensor, most: int) -> dict[LayerKind, RotaryCosSin]:
        """Returns the factors of positions that are all below `most`."""
        if most > self._size:
            self._size = max(512, 2 * most)
            self._known = {kind: _rotary(frequencies, self._size) for kind, frequencies in self._frequencies.items()}
        return {
            kind: RotaryCosSin(cos=known.cos.index_select(0, positions_N), sin=known.sin.index_select(0, positions_N))
            for kind, known in self._known.items()
        }


def _rotary(frequencies: Tensor, size: int) -> RotaryCosSin:
    angles = torch.arange(size, dtype=torch.float32)[:, None] * frequencies
    sin = angles.sin()
    return RotaryCosSin(cos=angles.cos().repeat(1, 2)[:, None], sin=torch.cat((-sin, sin), dim=1)[:, None])
