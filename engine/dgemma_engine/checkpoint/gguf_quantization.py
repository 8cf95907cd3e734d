"""Tensors of a GGUF file: expanded to floats, or in the blocks that they are stored in."""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.quantization.ggml_blocks import expand

# Values expanded at once: what lies between bytes and floats stays in the processor's caches. The 134 million values
# of SmolLM2 take 0.8 s of an EPYC core in such pieces, 1.9 s in pieces of a million.
_PIECE_VALUES = 2**17


def read_tensor(file: GgufFile, name: str, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns a tensor that is in the file as floats, on the CPU.

    Args:
        file: the mapped file.
        name: one of `file.tensors`.
        dtype: of the result; values are computed in float32 and then rounded.
    """
    result = torch.empty(file.tensors[name].shape, dtype=dtype)
    read_into(file, name, result)
    return result


def read_into(file: GgufFile, name: str, target: Tensor) -> None:
    """Writes a tensor that is in the file to a tensor of its shape, which may lie on another device."""
    info = file.tensors[name]
    values, num_bytes = info.type.block_values, info.type.block_bytes
    target_NV = target.view(-1, values)
    step = max(1, _PIECE_VALUES // values)
    for start in range(0, len(target_NV), step):
        part_NV = target_NV[start : start + step]
        raw = file.tensor_bytes(name, start * num_bytes, (start + len(part_NV)) * num_bytes)
        part_NV.copy_(expand(info.type.name, torch.frombuffer(raw, dtype=torch.uint8).view(-1, num_bytes)))
    file.release()


def read_blocks(file: GgufFile, name: str, start: int, end: int) -> Tensor:
    """Returns rows `start` to `end` of a tensor that is in the file as they are stored, uint8 [rows, blocks, bytes].

    Args:
        file: the mapped file.
        name: one of `file.tensors`; all its dimensions but the last are rows.
        start: the first row.
        end: one past the last.
    """
    info = file.tensors[name]
    num_blocks = info.shape[-1] // info.type.block_values
    row_bytes = num_blocks * info.type.block_bytes
    raw = file.tensor_bytes(name, start * row_bytes, end * row_bytes)
    return torch.frombuffer(raw, dtype=torch.uint8).view(end - start, num_blocks, info.type.block_bytes)
