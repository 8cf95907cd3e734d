"""A weight in few bits: codes and scales, made from floats and turned back into floats.

Four encodings. `int8` and `int4`: symmetric integers, one bfloat16 scale per group of 64 input columns. `fp8`: e4m3,
one bfloat16 scale per output row. `e2m1`: 4-bit floats with an e4m3 scale per 16 columns and a float32 factor per row
(the values and scales of NVFP4). The last group of a row may be shorter. Pure tensors: knows no files and no keys.

Shape legend: N output rows, K input columns, G = ceil(K / group_size); `...` are leading dimensions, such as experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from dgemma_engine.errors import CheckpointError

INT_GROUP = 64
E2M1_GROUP = 16

# Of a normal distribution's groups the four leave an error of 9.6 %, the first alone one of 10.8 %, eight one of 9.5 %.
_INT4_SHRINKAGES = (1.0, 0.933, 0.867, 0.8)
_E4M3_MAX = 448.0
_E2M1_MAX = 6.0
_E2M1_LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_SMALLEST_NORMAL = torch.finfo(torch.bfloat16).tiny


class Encoding(StrEnum):
    """How a weight's codes are to be read."""

    INT8 = "int8"
    INT4 = "int4"
    FP8 = "fp8"
    E2M1 = "e2m1"

    @property
    def is_paired(self) -> bool:
        """Whether two codes share a byte."""
        return self in (Encoding.INT4, Encoding.E2M1)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisedTensor:
    """A weight [..., N, K].

    Attributes:
        encoding: of the codes.
        codes: `int8` int8 and `fp8` float8_e4m3fn, [..., N, K]; `int4` and `e2m1` uint8 [..., N, ceil(K / 2)], an even
            column in the low four bits. A code of `int4` is the integer plus 8, one of `e2m1` sign and magnitude.
        scales: [..., N, G]; e4m3 for `e2m1`, else a wider float. A weight is its level times its scale.
        row_scales: float32 [..., N, 1], a further factor; None is 1.
        num_columns: K.
        group_size: columns per scale; K for one scale a row.
    """

    encoding: Encoding
    codes: Tensor
    scales: Tensor
    row_scales: Tensor | None
    num_columns: int
    group_size: int

    @property
    def shape(self) -> torch.Size:
        """[..., N, K]."""
        return torch.Size((*self.codes.shape[:-1], self.num_columns))

    @property
    def num_bytes(self) -> int:
        """Memory of codes and scales."""
        parts = (self.codes, self.scales, self.row_scales)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    def dequantise(self, dtype: torch.dtype, *, out: Tensor | None = None) -> Tensor:
        """Returns the weight [..., N, K]: level times scale as float32 has it, rounded once to `dtype`.

        Args:
            dtype: of the result.
            out: of the result's shape and `dtype`; written and returned if given.
        """
        if out is None:
            out = torch.empty(self.shape, dtype=dtype, device=self.codes.device)
        # A product of a short code and a bfloat16 scale is exact before it is rounded, whatever it is computed in.
        scales = self.scales if self.row_scales is None and self.scales.dtype is dtype else self.scales.float()
        if self.row_scales is not None:
            scales = scales * self.row_scales
        levels, size = self._levels(dtype), self.group_size
        whole = self.num_columns // size * size
        if whole:
            groups = levels[..., :whole].unflatten(-1, (-1, size))
            target = out[..., :whole].unflatten(-1, (-1, size))
            torch.mul(groups, scales[..., : whole // size, None], out=target)
        if whole < self.num_columns:
            torch.mul(levels[..., whole:], scales[..., whole // size :], out=out[..., whole:])
        return out

    def to(self, device: torch.device) -> Self:
        """Returns the same weight on `device`."""
        row_scales = None if self.row_scales is None else self.row_scales.to(device)
        return replace(self, codes=self.codes.to(device), scales=self.scales.to(device), row_scales=row_scales)

    def select(self, indices: Tensor) -> Self:
        """Returns the weights at `indices` (int64) of the first dimension."""
        row_scales = None if self.row_scales is None else self.row_scales[indices]
        return replace(self, codes=self.codes[indices], scales=self.scales[indices], row_scales=row_scales)

    def rows(self, start: int, end: int) -> Self:
        """Returns rows `start` to `end` of the weight [N, K]."""
        row_scales = None if self.row_scales is None else self.row_scales[start:end]
        return replace(self, codes=self.codes[start:end], scales=self.scales[start:end], row_scales=row_scales)

    def unflatten_rows(self, num: int) -> Self:
        """Returns the weight [N, K] as [num, N / num, K]."""
        row_scales = None if self.row_scales is None else self.row_scales.unflatten(0, (num, -1))
        codes, scales = self.codes.unflatten(0, (num, -1)), self.scales.unflatten(0, (num, -1))
        return replace(self, codes=codes, scales=scales, row_scales=row_scales)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Returns weights [N, K] of one encoding, width and group size as one, after each other along N."""
        first = parts[0]
        assert all(part.encoding is first.encoding and part.group_size == first.group_size for part in parts)
        rows = [part.row_scales for part in parts if part.row_scales is not None]
        assert len(rows) in (0, len(parts))
        # torch cannot concatenate 8-bit floats, so they go as bytes.
        codes = torch.cat([part.codes.view(torch.uint8) for part in parts]).view(first.codes.dtype)
        bits = torch.uint8 if first.scales.element_size() == 1 else first.scales.dtype
        scales = torch.cat([part.scales.view(bits) for part in parts]).view(first.scales.dtype)
        return replace(first, codes=codes, scales=scales, row_scales=torch.cat(rows) if rows else None)

    def _levels(self, dtype: torch.dtype) -> Tensor:
        """Returns the levels of the codes, [..., N, K]."""
        if self.encoding is Encoding.INT8:
            return self.codes
        if self.encoding is Encoding.FP8:
            return self.codes.to(dtype)
        # One look-up per byte yields two neighbouring levels at once.
        pair_type = torch.int32 if dtype.itemsize == 2 else torch.int64
        table = _pair_table(self.encoding, dtype, self.codes.device).view(pair_type)
        pairs = table[:, 0].index_select(0, self.codes.reshape(-1).int())
        return pairs.view(dtype).view(*self.codes.shape[:-1], -1)[..., : self.num_columns]


def quantise(weight: Tensor, encoding: Encoding, *, name: str) -> QuantisedTensor:
    """Rounds a weight to the nearest levels of an encoding.

    Args:
        weight: float [..., N, K].
        encoding: of the result.
        name: of the weight, for the message.

    Raises:
        CheckpointError: the weight holds NaN or infinity.
    """
    weight = weight.float()
    if not bool(torch.isfinite(weight).all()):
        raise CheckpointError(f"{name}: holds NaN or infinite weights; repair or download the checkpoint again")
    if encoding is Encoding.FP8:
        return _to_fp8(weight)
    if encoding is Encoding.E2M1:
        return _to_e2m1(weight)
    return _to_integers(weight, encoding)


def _to_integers(weight: Tensor, encoding: Encoding) -> QuantisedTensor:
    largest = 127 if encoding is Encoding.INT8 else 7
    groups = _grouped(weight, INT_GROUP)
    widest = groups.abs().amax(-1) / largest
    scales = _scales(widest)
    if encoding is Encoding.INT4:
        scales = _best_scales(groups, widest, _INT4_SHRINKAGES, largest)
    levels = _rounded(groups, scales, largest).flatten(-2)[..., : weight.shape[-1]]
    return QuantisedTensor(
        encoding=encoding,
        codes=levels.to(torch.int8) if encoding is Encoding.INT8 else _paired((levels + 8).to(torch.uint8)),
        scales=scales,
        row_scales=None,
        num_columns=weight.shape[-1],
        group_size=INT_GROUP,
    )


def _best_scales(groups: Tensor, widest: Tensor, shrinkages: Sequence[float], largest: int) -> Tensor:
    """Returns for each group the scale with the least squared error: clipping its largest weight can pay."""
    best = _scales(widest)
    least = torch.full_like(widest, torch.inf)
    for shrinkage in shrinkages:
        scales = _scales(widest * shrinkage)
        error = (_rounded(groups, scales, largest) * scales.float()[..., None] - groups).square_().sum(-1)
        best = torch.where(error < least, scales, best)
        least = torch.minimum(error, least)
    return best


def _rounded(groups: Tensor, scales: Tensor, largest: int) -> Tensor:
    return (groups / scales.float()[..., None]).round_().clamp_(-largest - 1, largest)


def _to_fp8(weight: Tensor) -> QuantisedTensor:
    scales = _scales(weight.abs().amax(-1, keepdim=True) / _E4M3_MAX)
    # With a scale that was rounded down, the largest weight may exceed the format, and a cast makes NaN of it.
    codes = (weight / scales.float()).clamp_(-_E4M3_MAX, _E4M3_MAX).to(torch.float8_e4m3fn)
    return QuantisedTensor(
        encoding=Encoding.FP8,
        codes=codes,
        scales=scales,
        row_scales=None,
        num_columns=weight.shape[-1],
        group_size=weight.shape[-1],
    )


def _to_e2m1(weight: Tensor) -> QuantisedTensor:
    groups = _grouped(weight, E2M1_GROUP)
    group_max = groups.abs().amax(-1)
    matrix_max = group_max.amax((-2, -1), keepdim=True)
    # A power of two: its reciprocal is exact, so what is written as a divisor is read back to the bit.
    exponent = torch.log2(_E4M3_MAX * _E2M1_MAX / matrix_max.clamp(min=_SMALLEST_NORMAL)).floor_().clamp_(-126, 126)
    factor = torch.exp2(exponent)
    scales = (group_max / _E2M1_MAX * factor).clamp_(max=_E4M3_MAX).to(torch.float8_e4m3fn)
    used = (scales.float() / factor)[..., None]
    ratio = torch.where(used > 0, groups / used, 0.0)
    codes = _paired(_e2m1_codes(ratio).flatten(-2)[..., : weight.shape[-1]])
    return QuantisedTensor(
        encoding=Encoding.E2M1,
        codes=codes,
        scales=scales,
        row_scales=(1.0 / factor).expand(*weight.shape[:-1], 1).contiguous(),
        num_columns=weight.shape[-1],
        group_size=E2M1_GROUP,
    )


def _e2m1_codes(x: Tensor) -> Tensor:
    """Returns sign and magnitude of the nearest level, ties to the even code; uint8."""
    size = x.abs()
    code = torch.zeros_like(x, dtype=torch.uint8)
    for i, (low, high) in enumerate(pairwise(_E2M1_LEVELS)):
        middle = (low + high) / 2
        code += (size >= middle) if i % 2 else (size > middle)
    return code | ((x < 0) & (code > 0)).to(torch.uint8) << 3


def _scales(exact: Tensor) -> Tensor:
    """Returns scales as bfloat16 keeps them; a group of zeros gets 1, and no scale is too small to divide by."""
    return torch.where(exact > 0, exact.clamp(min=_SMALLEST_NORMAL), 1.0).to(torch.bfloat16)


def _grouped(weight: Tensor, size: int) -> Tensor:
    """Returns [..., N, G, size], the last group padded with zeros."""
    missing = -weight.shape[-1] % size
    return F.pad(weight, (0, missing)).unflatten(-1, (-1, size))


def _paired(codes: Tensor) -> Tensor:
    """Returns two 4-bit codes a byte, even columns low; an odd last column stands alone."""
    codes = F.pad(codes, (0, codes.shape[-1] % 2))
    return codes[..., 0::2] | codes[..., 1::2] << 4


def _pair_table(encoding: Encoding, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns the two levels of every byte, [256, 2]."""
    signed = (*_E2M1_LEVELS, *(-level for level in _E2M1_LEVELS))
    levels = range(-8, 8) if encoding is Encoding.INT4 else signed
    one = torch.tensor(levels, dtype=dtype, device=device)
    return torch.stack((one.repeat(16), one.repeat_interleave(16)), dim=-1)
