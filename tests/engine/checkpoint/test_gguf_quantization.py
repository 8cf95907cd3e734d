"""Dequantised tensors against the `gguf` package's own, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dgemma_engine.checkpoint import gguf_quantization
from dgemma_engine.checkpoint.gguf_file import GgufFile

from tests.gguf_files import random_blocks, write_gguf

# ggml's number, bytes of a block, where its 16-bit numbers are, values of a block.
TYPES = {
    "F32": (0, 4, (), 1),
    "F16": (1, 2, (0,), 1),
    "Q4_0": (2, 18, (0,), 32),
    "Q4_1": (3, 20, (0, 2), 32),
    "Q5_0": (6, 22, (0,), 32),
    "Q8_0": (8, 34, (0,), 32),
    "Q4_K": (12, 144, (0, 2), 256),
    "Q6_K": (14, 210, (208,), 256),
    "BF16": (30, 2, (), 1),
}


@pytest.mark.parametrize("piece_values", [2**20, 700])
@pytest.mark.parametrize("name", TYPES)
def test_equals_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, piece_values: int) -> None:
    gguf = pytest.importorskip("gguf", reason="dequantisation is not compared: the package gguf is not installed")
    monkeypatch.setattr(gguf_quantization, "_PIECE_VALUES", piece_values)
    number, block_bytes, halves, per_block = TYPES[name]
    raw = random_blocks(number, block_bytes, halves, (7, 768), per_block)
    path = write_gguf(tmp_path / "t.gguf", {"general.architecture": "llama"}, {"t": raw})
    (tensor,) = gguf.GGUFReader(path).tensors
    expected = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
    values = gguf_quantization.read_tensor(GgufFile(path), "t")
    assert values.shape == (7, 768)
    # As integers: random bytes of plain formats are NaN now and then.
    assert values.view(torch.int32).equal(expected.view(torch.int32))
