"""Rotary position embedding: positions to cosines and sines, one pair per layer kind.

Frequencies follow `_compute_proportional_rope_parameters` of `transformers/modeling_rope_utils.py` (5.23.0): they are
spaced over the whole head, and the ones past the rotated share are 0. Shape legend: B rows, T tokens, d head size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from dgemma_engine.model.config import LayerKind, RopeConfig


class RotaryDimensions(Protocol):
    """The configuration values of rotary tables, for each layer kind of the model."""

    @property
    def rope(self) -> Mapping[LayerKind, RopeConfig]:
        """Rotary embedding."""
        ...

    @property
    def head_dim(self) -> Mapping[LayerKind, int]:
        """Size of a head."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotary:
    """Cosines and sines of some positions, each [B, T, d]."""

    cos: Tensor
    sin: Tensor


class RotaryTable(nn.Module):
    """Frequencies of each layer kind that a model has.

    They are derived, so no checkpoint holds them, and no buffers, so that casting a model to 16 bits leaves them exact.
    """

    def __init__(self, config: RotaryDimensions) -> None:
        super().__init__()
        sizes = config.head_dim
        self._frequencies = {kind: inverse_frequencies(rope, sizes[kind]) for kind, rope in config.rope.items()}

    def forward(self, positions_BT: Tensor, dtype: torch.dtype) -> dict[LayerKind, Rotary]:
        """Returns cosines and sines for each layer kind in `dtype`; angles are computed in float32."""
        rotary: dict[LayerKind, Rotary] = {}
        for kind, frequencies in self._frequencies.items():
            if frequencies.device != positions_BT.device:
                # Once, with the first positions from there: a copy at every pass would wait for the device.
                frequencies = self._frequencies[kind] = frequencies.to(positions_BT.device)
            angles = positions_BT[..., None].float() * frequencies
            angles = torch.cat((angles, angles), dim=-1)
            rotary[kind] = Rotary(cos=angles.cos().to(dtype), sin=angles.sin().to(dtype))
        return rotary


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> Tensor:
    """Returns the head_dim / 2 angular frequencies, float32, those that do not rotate as 0."""
    num_rotated = int(rope.rotated_share * head_dim // 2)
    frequencies = torch.zeros(head_dim // 2, device="cpu")
    exponents = torch.arange(0, 2 * num_rotated, 2, dtype=torch.float32, device="cpu") / head_dim
    frequencies[:num_rotated] = 1.0 / rope.theta**exponents
    return frequencies
