"""Number formats of a matrix: five for weights, three for activation rows.

Group sizes run along the input dimension and are 64 (704 = 11 x 64, but 5.5 x 128). Shape legend: E leading dimensions
(experts, or none), O output features, I input features, N rows, D features of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

GROUP = 64
NVFP4_GROUP = 16
FP8_MAX = 448.0


class WeightFormat(StrEnum):
    """How a weight matrix is stored."""

    PLAIN = "plain"
    FP8 = "fp8"
    INT8 = "int8"
    INT4 = "int4"
    NVFP4 = "nvfp4"


class RowFormat(StrEnum):
    """How activation rows are stored."""

    PLAIN = "plain"
    FP8_TOKEN = "fp8_token"
    FP8_GROUP = "fp8_group"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A weight matrix as a checkpoint stores it; no weight is asymmetric.

    Attributes:
        format: of `data`.
        data: [.., O, I] bf16, fp16 or fp32 (plain), float8_e4m3fn, int8; [.., O, I / 2] uint8 for four bits, even
            column in the low nibble, an int4's value being nibble - 8.
        scale: fp8: [.., O] fp32. int8, int4: [.., O, I / 64] bf16. nvfp4: [.., O, I / 16] float8_e4m3fn. Multiplied.
        global_scale: nvfp4: fp32, broadcastable to [.., O] and multiplied.
    """

    format: WeightFormat
    data: Tensor
    scale: Tensor | None = None
    global_scale: Tensor | None = None

    def __post_init__(self) -> None:
        if self.format is WeightFormat.PLAIN:
            return
        if self.scale is None:
            raise ValueError(f"a weight of {self.format=} needs its scales; quantise the checkpoint again")
        expected = self._scale_shape()
        if tuple(self.scale.shape) != expected:
            raise ValueError(f"{tuple(self.scale.shape)=} must be {expected} for {self.format=}, groups of {GROUP}")
        if self.format is WeightFormat.NVFP4 and self.global_scale is None:
            raise ValueError("an nvfp4 weight needs its global scale; quantise the checkpoint again")

    @property
    def num_inputs(self) -> int:
        """Input features, I."""
        packed = self.format in (WeightFormat.INT4, WeightFormat.NVFP4)
        return self.data.shape[-1] * (2 if packed else 1)

    @property
    def num_outputs(self) -> int:
        """Output features, O."""
        return self.data.shape[-2]

    def _scale_shape(self) -> tuple[int, ...]:
        outer = tuple(self.data.shape[:-1])
        if self.format is WeightFormat.FP8:
            return outer
        group = NVFP4_GROUP if self.format is WeightFormat.NVFP4 else GROUP
        if self.num_inputs % GROUP:
            raise ValueError(f"{self.num_inputs=} is no multiple of {GROUP}: keep this matrix in 16 bits or fp8")
        return (*outer, self.num_inputs // group)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Activation rows.

    Attributes:
        data_ND: values, or float8_e4m3fn.
        scale: None, or fp32 that multiplies: [N] (per token) or [N, D / 64] (per group).
    """

    data_ND: Tensor
    scale: Tensor | None = None

    @property
    def format(self) -> RowFormat:
        """Which of the three formats these rows have."""
        if self.scale is None:
            return RowFormat.PLAIN
        return RowFormat.FP8_TOKEN if self.scale.ndim == 1 else RowFormat.FP8_GROUP


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One reader of a norm: its scale, and the format of its rows.

    Attributes:
        weight_D: scale of the norm, or None.
        format: of the rows it gets.
    """

    weight_D: Tensor | None = None
    format: RowFormat = RowFormat.PLAIN


def empty_rows(like_ND: Tensor, num_features: int, row_format: RowFormat) -> Rows:
    """Returns rows of `num_features`, not filled, beside `like_ND` and in its dtype where the format is plain.

    Raises:
        ValueError: groups of 64 do not divide the features.
    """
    num_rows = like_ND.shape[0]
    if row_format is RowFormat.PLAIN:
        return Rows(data_ND=like_ND.new_empty(num_rows, num_features))
    if row_format is RowFormat.FP8_GROUP and num_features % GROUP:
        raise ValueError(f"{num_features=} is no multiple of {GROUP}: quantise per token instead")
    scale_shape = (num_rows,) if row_format is RowFormat.FP8_TOKEN else (num_rows, num_features // GROUP)
    return Rows(
        data_ND=like_ND.new_empty(num_rows, num_features, dtype=torch.float8_e4m3fn),
        scale=like_ND.new_empty(scale_shape, dtype=torch.float32),
    )
