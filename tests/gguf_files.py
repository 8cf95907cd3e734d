"""Writes small GGUF files for tests, independently of the code that reads them."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

F32, F16, BF16, Q8_0 = 0, 1, 30, 8
# What a tensor is written from: ggml's number of its type, its shape with rows first, and its bytes.
Raw = tuple[int, tuple[int, ...], bytes]


def write_gguf(
    path: Path, metadata: Mapping[str, object], tensors: Mapping[str, Raw], *, alignment: int = 32, version: int = 3
) -> Path:
    sizes = {name: (kind, shape, len(raw)) for name, (kind, shape, raw) in tensors.items()}
    data = b"".join(raw + bytes(-len(raw) % alignment) for _, _, raw in tensors.values())
    path.write_bytes(header(metadata, sizes, alignment=alignment, version=version) + data)
    return path


def header(
    metadata: Mapping[str, object],
    tensors: Mapping[str, tuple[int, tuple[int, ...], int]],
    *,
    alignment: int = 32,
    version: int = 3,
) -> bytes:
    """All that stands before the first tensor; of each tensor ggml's number of its type, its shape and its bytes."""
    infos, offset = list[bytes](), 0
    for name, (kind, shape, num_bytes) in tensors.items():
        dimensions = b"".join(struct.pack("<Q", size) for size in reversed(shape))
        infos.append(text(name) + struct.pack("<I", len(shape)) + dimensions + struct.pack("<IQ", kind, offset))
        offset += num_bytes + -num_bytes % alignment
    keys = [text(key) + value_of(value) for key, value in metadata.items()]
    whole = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata)) + b"".join(keys + infos)
    return whole + bytes(-len(whole) % alignment)


def text(content: str) -> bytes:
    raw = content.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def value_of(value: object) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<Ii" if value < 0 else "<II", 5 if value < 0 else 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + text(value)
        case list() if value and isinstance(value[0], bool):
            return struct.pack(f"<IIQ{len(value)}?", 9, 7, len(value), *value)
        case list() if value and isinstance(value[0], str):
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
        case list():
            return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
        case _:
            raise AssertionError(value)


def f32(tensor: Tensor) -> Raw:
    return F32, tuple(tensor.shape), tensor.float().contiguous().numpy().tobytes()


def f16(tensor: Tensor) -> Raw:
    return F16, tuple(tensor.shape), tensor.half().contiguous().numpy().tobytes()


def random_blocks(kind: int, block_bytes: int, halves: tuple[int, ...], shape: tuple[int, ...], per_block: int) -> Raw:
    """Random bytes, but for the 16-bit scales at the offsets `halves`, which are ordinary numbers."""
    generator = torch.Generator().manual_seed(kind)
    num_blocks = math.prod(shape) // per_block
    blocks = torch.randint(0, 256, (num_blocks, block_bytes), generator=generator, dtype=torch.uint8)
    for offset in halves:
        scales = torch.randn(num_blocks, 1, generator=generator).half()
        blocks[:, offset : offset + 2] = scales.view(torch.uint8)
    return kind, shape, blocks.numpy().tobytes()
