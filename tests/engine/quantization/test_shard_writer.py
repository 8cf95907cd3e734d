"""Shards written piece by piece are read by `safetensors` itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from dgemma_engine.checkpoint.tensor_files import StoredTensor
from dgemma_engine.tools.conversion.shard_writer import ShardPlan, ShardWriter
from safetensors.torch import load_file

TENSORS = {
    "scalar": torch.tensor([1.5], dtype=torch.bfloat16),
    "bytes": torch.arange(7, dtype=torch.uint8),
    "shape": torch.tensor([3, 5]),
    "small floats": torch.randn(3, 5).to(torch.float8_e4m3fn),
    "factor": torch.tensor(2.5),
    "words": torch.arange(12, dtype=torch.int32).view(3, 4),
    "matrix": torch.randn(6, 10).to(torch.bfloat16),
}
NAMES = {
    torch.bfloat16: "BF16", torch.uint8: "U8", torch.int64: "I64", torch.float8_e4m3fn: "F8_E4M3",
    torch.float32: "F32", torch.int32: "I32",
}  # fmt: skip


def headers() -> list[tuple[str, StoredTensor]]:
    return [(key, StoredTensor(dtype=NAMES[t.dtype], shape=tuple(t.shape))) for key, t in TENSORS.items()]


@pytest.mark.parametrize("most_bytes", [10**9, 60, 1])
def test_every_type_comes_back_from_any_number_of_shards(most_bytes: int, tmp_path: Path) -> None:
    plan = ShardPlan(headers(), most_bytes=most_bytes)
    with ShardWriter(tmp_path, plan) as writer:
        for key, tensor in TENSORS.items():
            for rows in tensor.split(2) if tensor.ndim else (tensor,):
                writer.write(key, rows)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) == {10**9: 1, 60: 3, 1: len(TENSORS)}[most_bytes]
    assert sum(path.stat().st_size for path in files) == plan.num_bytes
    found = {key: tensor for path in files for key, tensor in load_file(path).items()}
    assert found.keys() == TENSORS.keys()
    for key, tensor in TENSORS.items():
        assert found[key].dtype == tensor.dtype
        assert torch.equal(found[key].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)), key
    index = tmp_path / "model.safetensors.index.json"
    if len(files) == 1:
        assert not index.exists()
    else:
        weight_map = json.loads(index.read_text())["weight_map"]
        assert {key: load_file(tmp_path / name).keys() >= {key} for key, name in weight_map.items()} == dict.fromkeys(
            TENSORS, True
        )


def test_missing_tensor_is_detected(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="planned and not written"),
        ShardWriter(tmp_path, ShardPlan(headers())) as w,
    ):
        w.write("scalar", TENSORS["scalar"])
