"""Quantising and restoring weights and activation rows in plain PyTorch: the reference of every quantised kernel.

Round to nearest, symmetric. Shape legend: O output features, I input features, N rows, D features of a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_kernels.tensors.formats import FP8_MAX, GROUP, NVFP4_GROUP, RowFormat, Rows, Weight, WeightFormat

FP4_MAX = 6.0
FP4_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
SMALLEST_SCALE = 1e-12


def quantise_rows(x_ND: Tensor, row_format: RowFormat) -> Rows:
    """Stores rows in a format; fp8 scales put the largest magnitude of a token or group at 448.

    Args:
        x_ND: any float dtype.
        row_format: of the result.
    """
    if row_format is RowFormat.PLAIN:
        return Rows(data_ND=x_ND)
    group = x_ND.shape[-1] if row_format is RowFormat.FP8_TOKEN else GROUP
    grouped = x_ND.float().unflatten(-1, (-1, group))
    scale = grouped.abs().amax(-1).clamp(min=SMALLEST_SCALE) / FP8_MAX
    data_ND = (grouped / scale[..., None]).flatten(-2).to(torch.float8_e4m3fn)
    return Rows(data_ND=data_ND, scale=scale[:, 0] if row_format is RowFormat.FP8_TOKEN else scale)


def restore_rows(rows: Rows) -> Tensor:
    """Returns the values that rows stand for, [N, D] float32."""
    data_ND = rows.data_ND.float()
    if rows.scale is None:
        return data_ND
    scale = rows.scale[:, None] if rows.format is RowFormat.FP8_TOKEN else rows.scale.repeat_interleave(GROUP, dim=-1)
    return data_ND * scale


def quantise_weight(weight: Tensor, weight_format: WeightFormat) -> Weight:
    """Stores a matrix [.., O, I] in a format, by rounding to nearest.

    Raises:
        ValueError: groups of 64 do not divide I.
    """
    if weight_format is WeightFormat.PLAIN:
        return Weight(format=weight_format, data=weight)
    if weight_format is WeightFormat.FP8:
        scale = weight.float().abs().amax(-1).clamp(min=SMALLEST_SCALE) / FP8_MAX
        return Weight(
            format=weight_format, data=(weight.float() / scale[..., None]).to(torch.float8_e4m3fn), scale=scale
        )
    if weight.shape[-1] % GROUP:
        raise ValueError(f"{weight.shape[-1]=} is no multiple of {GROUP}: keep this matrix in 16 bits or fp8")
    if weight_format is WeightFormat.NVFP4:
        return _quantise_nvfp4(weight.float())
    largest = 7.0 if weight_format is WeightFormat.INT4 else 127.0
    grouped = weight.float().unflatten(-1, (-1, GROUP))
    scale = (grouped.abs().amax(-1).clamp(min=SMALLEST_SCALE) / largest).bfloat16()
    levels = (grouped / scale.float()[..., None]).round().clamp(-largest, largest).flatten(-2).to(torch.int8)
    data = pack_nibbles(levels.to(torch.uint8) + 8) if weight_format is WeightFormat.INT4 else levels
    return Weight(format=weight_format, data=data, scale=scale)


def restore_weight(weight: Weight) -> Tensor:
    """Returns the values that a weight stands for, [.., O, I] float32."""
    match weight.format:
        case WeightFormat.PLAIN:
            return weight.data.float()
        case WeightFormat.FP8:
            assert weight.scale is not None
            return weight.data.float() * weight.scale[..., None]
        case WeightFormat.INT8:
            return _scaled(weight.data.float(), weight)
        case WeightFormat.INT4:
            return _scaled(unpack_nibbles(weight.data).float() - 8, weight)
        case WeightFormat.NVFP4:
            assert weight.global_scale is not None
            codes = unpack_nibbles(weight.data).long()
            magnitudes = torch.tensor(FP4_MAGNITUDES, device=codes.device)
            values = magnitudes[codes & 7] * (1.0 - 2.0 * (codes >> 3))
            return _scaled(values, weight) * weight.global_scale[..., None]


def pack_nibbles(codes: Tensor) -> Tensor:
    """Returns [.., I / 2] of codes [.., I] below 16: even columns in the low nibbles, uint8."""
    return codes[..., 0::2] | (codes[..., 1::2] << 4)


def unpack_nibbles(data: Tensor) -> Tensor:
    """Returns the codes [.., I] of `pack_nibbles`, uint8."""
    return torch.stack((data & 15, data >> 4), dim=-1).flatten(-2)


def _scaled(values: Tensor, weight: Weight) -> Tensor:
    assert weight.scale is not None
    group = NVFP4_GROUP if weight.format is WeightFormat.NVFP4 else GROUP
    return values * weight.scale.float().repeat_interleave(group, dim=-1)


def _quantise_nvfp4(weight: Tensor) -> Weight:
    grouped = weight.unflatten(-1, (-1, NVFP4_GROUP))
    largest = grouped.abs().amax(-1)
    overall = largest.amax().clamp(min=SMALLEST_SCALE) / (FP4_MAX * FP8_MAX)
    scale = (largest / FP4_MAX / overall).to(torch.float8_e4m3fn)
    exact = grouped / (scale.float() * overall).clamp(min=SMALLEST_SCALE)[..., None]
    magnitudes = torch.tensor(FP4_MAGNITUDES, device=weight.device)
    codes = torch.bucketize(exact.abs(), (magnitudes[1:] + magnitudes[:-1]) / 2).to(torch.uint8)
    codes |= (exact < 0).to(torch.uint8) << 3
    return Weight(
        format=WeightFormat.NVFP4,
        data=pack_nibbles(codes.flatten(-2)),
        scale=scale,
        global_scale=overall.expand(weight.shape[:-2])[..., None],
    )
