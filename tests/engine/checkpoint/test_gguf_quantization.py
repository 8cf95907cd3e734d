"""Dequantised tensors against the `gguf` package's own, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dgemma_engine.checkpoint import gguf_quantization
from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.quantization.ggml_blocks import even_levels, expand
from dgemma_engine.quantization.ggml_types import TENSOR_TYPES

from tests.gguf_files import random_blocks, write_gguf

# Number of the type in ggml, bytes of a block, offsets of its 16-bit floats, values of a block.
TYPES = {
    "F32": (0, 4, (), 1),
    "F16": (1, 2, (0,), 1),
    "Q4_0": (2, 18, (0,), 32),
    "Q4_1": (3, 20, (0, 2), 32),
    "Q5_0": (6, 22, (0,), 32),
    "Q5_1": (7, 24, (0, 2), 32),
    "Q8_0": (8, 34, (0,), 32),
    "Q4_K": (12, 144, (0, 2), 256),
    "Q5_K": (13, 176, (0, 2), 256),
    "Q6_K": (14, 210, (208,), 256),
    "IQ4_NL": (20, 18, (0,), 32),
    "IQ4_XS": (23, 136, (0,), 256),
    "BF16": (30, 2, (), 1),
}


def test_every_type_is_compared() -> None:
    assert {number: (kind.name, kind.block_bytes, kind.block_values) for number, kind in TENSOR_TYPES.items()} == {
        number: (name, block_bytes, values) for name, (number, block_bytes, _halves, values) in TYPES.items()
    }


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q4_K"])
def test_even_levels_are_the_values(name: str) -> None:
    number, block_bytes, halves, per_block = TYPES[name]
    _, _, raw = random_blocks(number, block_bytes, halves, (7, 768), per_block)
    blocks = torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(-1, block_bytes)
    levels = even_levels(name, blocks)
    assert levels is not None
    codes = levels.codes.view(len(blocks), -1, 32).float()
    values = codes * levels.step[..., None] + levels.least[..., None]
    torch.testing.assert_close(values.flatten(1), expand(name, blocks), rtol=1e-5, atol=1e-4)


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
