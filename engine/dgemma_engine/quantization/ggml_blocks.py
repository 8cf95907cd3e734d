"""Blocks of values as ggml stores them -> floats, and the parts of blocks whose values are evenly spaced.

Formulas and their order follow `gguf/quants.py` of the `gguf` package (0.19.0), whose float32 results these equal bit
for bit. Pure tensors: knows no files. Shape legend: N blocks; the second dimension is what one block holds, bytes going
in and values coming out; G groups of 32 values that share a scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# The low half of each of eight bytes.
_LOW_HALVES = 0x0F0F0F0F0F0F0F0F
# The values of the sixteen codes of IQ4.
_IQ4_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvenLevels:
    """Values `least + step * code`, sixteen to a group of 32.

    Attributes:
        codes: uint8 [N, values of a block], 0 to 15.
        step: float32 [N, G].
        least: float32 [N, G].
    """

    codes: Tensor
    step: Tensor
    least: Tensor


def expand(type_name: str, blocks_Nb: Tensor) -> Tensor:
    """Returns the values of blocks, float32 [N, values of a block].

    Args:
        type_name: one of `ggml_types.TENSOR_TYPES`.
        blocks_Nb: uint8, on a processor.
    """
    return _EXPAND[type_name](blocks_Nb)


def even_levels(type_name: str, blocks_Nb: Tensor) -> EvenLevels | None:
    """Returns the parts of blocks, or None for a type whose groups of 32 have not sixteen evenly spaced values.

    Args:
        type_name: one of `ggml_types.TENSOR_TYPES`.
        blocks_Nb: uint8, on a processor.
    """
    split = _SPLIT.get(type_name)
    return None if split is None else split(blocks_Nb)


def has_even_levels(type_name: str) -> bool:
    """Whether `even_levels` returns the parts of blocks of a type."""
    return type_name in _SPLIT


def _f32(blocks_Nb: Tensor) -> Tensor:
    return _as(blocks_Nb, torch.float32)


def _f16(blocks_Nb: Tensor) -> Tensor:
    return _as(blocks_Nb, torch.float16).float()


def _bf16(blocks_Nb: Tensor) -> Tensor:
    return _as(blocks_Nb, torch.bfloat16).float()


def _q4_0(blocks_Nb: Tensor) -> Tensor:
    return _nibbles(blocks_Nb[:, 2:]).float().sub_(8).mul_(_f16(blocks_Nb[:, :2]))


def _q4_1(blocks_Nb: Tensor) -> Tensor:
    return _nibbles(blocks_Nb[:, 4:]).float().mul_(_f16(blocks_Nb[:, :2])).add_(_f16(blocks_Nb[:, 2:4]))


def _q5_0(blocks_Nb: Tensor) -> Tensor:
    codes_N32 = (_nibbles(blocks_Nb[:, 6:]) | _bits(blocks_Nb[:, 2:6]) << 4).float()
    return codes_N32.sub_(16).mul_(_f16(blocks_Nb[:, :2]))


def _q8_0(blocks_Nb: Tensor) -> Tensor:
    return _as(blocks_Nb[:, 2:], torch.int8).float().mul_(_f16(blocks_Nb[:, :2]))


def _q5_1(blocks_Nb: Tensor) -> Tensor:
    codes_N32 = (_nibbles(blocks_Nb[:, 8:]) | _bits(blocks_Nb[:, 4:8]) << 4).float()
    return codes_N32.mul_(_f16(blocks_Nb[:, :2])).add_(_f16(blocks_Nb[:, 2:4]))


def _q4_k(blocks_Nb: Tensor) -> Tensor:
    scale_N8, minimum_N8 = _six_bit_scales(blocks_Nb)
    values_N8V = _nibbles(blocks_Nb[:, 16:].reshape(-1, 32)).view(-1, 8, 32).float()
    return (scale_N8[..., None] * values_N8V - minimum_N8[..., None]).flatten(1)


def _q5_k(blocks_Nb: Tensor) -> Tensor:
    # As Q4_K; a fifth bit of each of the eight groups' values lies in one of 32 bytes.
    scale_N8, minimum_N8 = _six_bit_scales(blocks_Nb)
    low_N8V = _nibbles(blocks_Nb[:, 48:].reshape(-1, 32)).view(-1, 8, 32)
    fifth_N8V = blocks_Nb[:, None, 16:48] >> torch.arange(8, dtype=torch.uint8)[:, None] & 1
    values_N8V = (low_N8V | fifth_N8V << 4).float()
    return (scale_N8[..., None] * values_N8V - minimum_N8[..., None]).flatten(1)


def _q6_k(blocks_Nb: Tensor) -> Tensor:
    # Sixteen groups of 16 values; four low bits and two high bits of each lie apart.
    scale_NG = _f16(blocks_Nb[:, 208:]) * _as(blocks_Nb[:, 192:208], torch.int8)
    low_N8V = _nibbles(blocks_Nb[:, :128].reshape(-1, 64)).view(-1, 8, 32)
    shift_41 = torch.arange(0, 8, 2, dtype=torch.uint8)[:, None]
    high_N8V = (blocks_Nb[:, 128:192].reshape(-1, 2, 1, 32) >> shift_41 & 3).flatten(1, 2)
    values_NGV = (low_N8V | high_N8V << 4).view(-1, 16, 16).float() - 32
    return (scale_NG[..., None] * values_NGV).flatten(1)


def _iq4_nl(blocks_Nb: Tensor) -> Tensor:
    return _iq4_levels(blocks_Nb[:, 2:]).mul_(_f16(blocks_Nb[:, :2]))


def _iq4_xs(blocks_Nb: Tensor) -> Tensor:
    # Eight groups of 32 values; the scale of each has four low bits in one place and two high bits in another.
    low_N8 = torch.stack((blocks_Nb[:, 4:8] & 0x0F, blocks_Nb[:, 4:8] >> 4), dim=-1).flatten(1)
    shift_4 = torch.arange(0, 8, 2, dtype=torch.uint8)
    high_N8 = (blocks_Nb[:, 2:4, None] >> shift_4 & 3).flatten(1)
    scale_N8 = _f16(blocks_Nb[:, :2]) * ((low_N8 | high_N8 << 4).float() - 32)
    values_N8V = _iq4_levels(blocks_Nb[:, 8:].reshape(-1, 16)).view(-1, 8, 32)
    return (scale_N8[..., None] * values_N8V).flatten(1)


_EXPAND: dict[str, Callable[[Tensor], Tensor]] = {
    "F32": _f32, "F16": _f16, "BF16": _bf16, "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0,
    "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k, "IQ4_NL": _iq4_nl, "IQ4_XS": _iq4_xs,
}  # fmt: skip


def _split_q4_0(blocks_Nb: Tensor) -> EvenLevels:
    step_N1 = _f16(blocks_Nb[:, :2])
    return EvenLevels(codes=_nibbles(blocks_Nb[:, 2:]), step=step_N1, least=-8 * step_N1)


def _split_q4_1(blocks_Nb: Tensor) -> EvenLevels:
    codes_N32 = _nibbles(blocks_Nb[:, 4:])
    return EvenLevels(codes=codes_N32, step=_f16(blocks_Nb[:, :2]), least=_f16(blocks_Nb[:, 2:4]))


def _split_q4_k(blocks_Nb: Tensor) -> EvenLevels:
    scale_N8, minimum_N8 = _six_bit_scales(blocks_Nb)
    codes_NV = _nibbles(blocks_Nb[:, 16:].reshape(-1, 32)).view(-1, 256)
    return EvenLevels(codes=codes_NV, step=scale_N8, least=-minimum_N8)


_SPLIT: dict[str, Callable[[Tensor], EvenLevels]] = {"Q4_0": _split_q4_0, "Q4_1": _split_q4_1, "Q4_K": _split_q4_k}


def _six_bit_scales(blocks_Nb: Tensor) -> tuple[Tensor, Tensor]:
    """Returns scale and minimum of the eight groups of a K block, [N, 8] each; six bits each, packed into 12 bytes."""
    low_N4, middle_N4, high_N4 = blocks_Nb[:, 4:16].split(4, dim=1)
    scale_N8 = torch.cat((low_N4 & 0x3F, high_N4 & 0x0F | low_N4 >> 2 & 0x30), dim=1)
    minimum_N8 = torch.cat((middle_N4 & 0x3F, high_N4 >> 4 | middle_N4 >> 2 & 0x30), dim=1)
    return _f16(blocks_Nb[:, :2]) * scale_N8, _f16(blocks_Nb[:, 2:4]) * minimum_N8


def _iq4_levels(bytes_Nb: Tensor) -> Tensor:
    """Returns the values of the codes in the halves of each row's bytes."""
    return torch.tensor(_IQ4_LEVELS, dtype=torch.float32)[_nibbles(bytes_Nb).int()]


def _bits(bytes_Nb: Tensor) -> Tensor:
    """Returns the bits of each row's bytes, the lowest of each byte first."""
    bits_256_8 = torch.arange(256)[:, None] >> torch.arange(8) & 1
    # One look-up per byte yields its eight bits at once.
    words_256 = bits_256_8.to(torch.uint8).view(torch.int64)[:, 0]
    return words_256.index_select(0, bytes_Nb.flatten().int()).view(len(bytes_Nb), -1).view(torch.uint8)


def _as(bytes_Nb: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the numbers that some columns of bytes are."""
    return bytes_Nb.contiguous().view(dtype)


def _nibbles(bytes_Nb: Tensor) -> Tensor:
    """Returns the low halves of each row's bytes, whose number 8 divides, then the high ones."""
    # Eight bytes at once: with one at a time, rows as short as these take several times as long.
    words_Nw = bytes_Nb.contiguous().view(torch.int64)
    return torch.cat((words_Nw & _LOW_HALVES, words_Nw >> 4 & _LOW_HALVES), dim=1).view(torch.uint8)
