"""Bytes of a GGUF tensor to floats: one function for each way in which ggml stores a block of values.

Formulas and their order follow `gguf/quants.py` of the `gguf` package (0.19.0), whose float32 results these equal bit
for bit. Shape legend: N blocks; the second dimension is what one block holds, bytes going in and values coming out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dgemma_engine.checkpoint.gguf_file import GgufFile

# Values expanded at once: what lies between bytes and floats stays in the processor's caches. The 134 million values
# of SmolLM2 take 0.8 s of an EPYC core in such pieces, 1.9 s in pieces of a million.
_PIECE_VALUES = 2**17


def read_tensor(file: GgufFile, name: str, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns a tensor that is in the file, on the CPU, in memory of its own.

    Args:
        file: the mapped file.
        name: one of `file.tensors`.
        dtype: of the result; values are computed in float32 and then rounded.
    """
    info = file.tensors[name]
    expand, values = _EXPAND[info.type.name], info.type.block_values
    blocks_Nb = torch.frombuffer(file.tensor_bytes(name), dtype=torch.uint8).view(-1, info.type.block_bytes)
    result_NV = torch.empty(len(blocks_Nb), values, dtype=dtype)
    step = max(1, _PIECE_VALUES // values)
    for start in range(0, len(blocks_Nb), step):
        result_NV[start : start + step] = expand(blocks_Nb[start : start + step])
    return result_NV.view(info.shape)


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
    fifth_N32 = (blocks_Nb[:, 2:6, None] >> torch.arange(8, dtype=torch.uint8) & 1).flatten(1)
    return _f16(blocks_Nb[:, :2]) * ((_nibbles(blocks_Nb[:, 6:]) | fifth_N32 << 4).float() - 16)


def _q8_0(blocks_Nb: Tensor) -> Tensor:
    return _as(blocks_Nb[:, 2:], torch.int8).float().mul_(_f16(blocks_Nb[:, :2]))


def _q4_k(blocks_Nb: Tensor) -> Tensor:
    # Eight groups of 32 values; the scale and the minimum of each group have six bits, packed into twelve bytes.
    low_N4, middle_N4, high_N4 = blocks_Nb[:, 4:16].split(4, dim=1)
    scale_N8 = torch.cat((low_N4 & 0x3F, high_N4 & 0x0F | low_N4 >> 2 & 0x30), dim=1)
    minimum_N8 = torch.cat((middle_N4 & 0x3F, high_N4 >> 4 | middle_N4 >> 2 & 0x30), dim=1)
    scale_N8, minimum_N8 = _f16(blocks_Nb[:, :2]) * scale_N8, _f16(blocks_Nb[:, 2:4]) * minimum_N8
    values_N8V = _nibbles(blocks_Nb[:, 16:].reshape(-1, 32)).view(-1, 8, 32).float()
    return (scale_N8[..., None] * values_N8V - minimum_N8[..., None]).flatten(1)


def _q6_k(blocks_Nb: Tensor) -> Tensor:
    # Sixteen groups of 16 values; four low bits and two high bits of each lie apart.
    scale_NG = _f16(blocks_Nb[:, 208:]) * _as(blocks_Nb[:, 192:208], torch.int8)
    low_N8V = _nibbles(blocks_Nb[:, :128].reshape(-1, 64)).view(-1, 8, 32)
    shift_41 = torch.arange(0, 8, 2, dtype=torch.uint8)[:, None]
    high_N8V = (blocks_Nb[:, 128:192].reshape(-1, 2, 1, 32) >> shift_41 & 3).flatten(1, 2)
    values_NGV = (low_N8V | high_N8V << 4).view(-1, 16, 16).float() - 32
    return (scale_NG[..., None] * values_NGV).flatten(1)


_EXPAND: dict[str, Callable[[Tensor], Tensor]] = {
    "F32": _f32, "F16": _f16, "BF16": _bf16, "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q8_0": _q8_0,
    "Q4_K": _q4_k, "Q6_K": _q6_k,
}  # fmt: skip


def _as(bytes_Nb: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the numbers that some columns of bytes are."""
    return bytes_Nb.contiguous().view(dtype)


def _nibbles(bytes_Nb: Tensor) -> Tensor:
    """Returns the low halves of each row's bytes, then the high ones."""
    bytes_Nb = bytes_Nb.contiguous()
    return torch.cat((bytes_Nb & 0x0F, bytes_Nb >> 4), dim=1)
