"""Weights as checkpoints store them -> weights as the matrix kernels read them, without loss.

Four-bit weights are put in groups of 64 inputs, one group of all outputs after another, so that a kernel's tile is one
stretch of memory. A group's codes are 16 words of 16 bits: word c holds inputs c, c + 16, c + 32 and c + 48, lowest
bits first, so that two words in one register decode into pairs without moving bits between lanes, and each quarter of a
group meets consecutive activations. Scales of groups follow the same order. Shape legend: E experts (1 for a dense
matrix), O output features, I input features, J = I / 64 groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_kernels.reference.quantization import unpack_nibbles
from dgemma_kernels.tensors.formats import GROUP, NVFP4_GROUP, Weight, WeightFormat

# The factor that the decoder of e2m1 leaves out, see `_weights.py`.
E2M1_FACTOR = 2.0**8
FOUR_BITS = (WeightFormat.INT4, WeightFormat.NVFP4)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedWeight:
    """A weight in the kernels' order.

    Attributes:
        format: of `data`.
        data: [E, O, I], or [E, J, O, 16] int16 for four bits.
        scale: int8, int4: [E, J, O] bf16; nvfp4: [E, J, 4, O] float8_e4m3fn; else None.
        row_scale_EO: fp8, nvfp4: float32 factor of each output (nvfp4's includes `E2M1_FACTOR`); else None.
        num_outputs: O.
        num_inputs: I.
    """

    format: WeightFormat
    data: Tensor
    scale: Tensor | None
    row_scale_EO: Tensor | None
    num_outputs: int
    num_inputs: int


def pack_for_kernel(weight: Weight) -> PackedWeight:
    """Returns a weight in the kernels' order; plain and fp8 matrices are not copied."""
    data = weight.data if weight.data.ndim == 3 else weight.data[None]
    scale, row_scale_EO = weight.scale, None
    if scale is not None and weight.data.ndim == 2:
        scale = scale[None]
    if weight.format is WeightFormat.FP8:
        row_scale_EO, scale = scale, None
    elif scale is not None:
        if weight.format in FOUR_BITS:
            data = _regrouped(data)
        if weight.format is WeightFormat.NVFP4:
            assert weight.global_scale is not None
            row_scale_EO = weight.global_scale.float().expand(data.shape[0], weight.num_outputs) * E2M1_FACTOR
            scale = scale.unflatten(-1, (-1, GROUP // NVFP4_GROUP)).permute(0, 2, 3, 1).contiguous()
        else:
            scale = scale.transpose(1, 2).contiguous()
    return PackedWeight(
        format=weight.format,
        data=data.contiguous(),
        scale=scale,
        row_scale_EO=None if row_scale_EO is None else row_scale_EO.contiguous(),
        num_outputs=weight.num_outputs,
        num_inputs=weight.num_inputs,
    )


def _regrouped(data: Tensor) -> Tensor:
    """Returns [E, J, O, 16] of [E, O, I / 2], one expert at a time, so that memory for one more is enough."""
    shape = (data.shape[0], data.shape[2] * 2 // GROUP, data.shape[1], GROUP // 4)
    packed = data.new_empty(shape, dtype=torch.int16)
    for target, source in zip(packed, data, strict=True):
        codes = unpack_nibbles(source).unflatten(-1, (-1, 4, GROUP // 4)).to(torch.int32)
        words = codes[:, :, 0] | (codes[:, :, 1] << 4) | (codes[:, :, 2] << 8) | (codes[:, :, 3] << 12)
        target.copy_(words.transpose(0, 1).to(torch.int16))
    return packed
