"""Tensors to safetensors shards, each written as it comes: never more than one tensor in memory.

Types and shapes are known before the first tensor, so headers, sizes and places are too. `safetensors` itself can only
write a file whose tensors are all in memory. File format: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import torch
from torch import Tensor

from dgemma_engine.checkpoint.safetensors_reader import INDEX, SINGLE
from dgemma_engine.checkpoint.tensor_files import StoredTensor

MOST_SHARD_BYTES = 4_000_000_000

_ITEM_BYTES = {
    "I64": 8, "F64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "BF16": 2, "F16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where in which shard a tensor goes."""

    shard: int
    start: int
    num_bytes: int


class ShardPlan:
    """Which shard and which bytes of it every tensor gets.

    Args:
        headers: key, type and shape of every tensor; neighbours come to lie in one shard.
        most_bytes: size of a shard's data; a tensor that is larger gets a shard of its own.
    """

    def __init__(self, headers: Iterable[tuple[str, StoredTensor]], *, most_bytes: int = MOST_SHARD_BYTES) -> None:
        shards: list[list[tuple[str, StoredTensor]]] = [[]]
        filled = 0
        for key, header in headers:
            size = _num_bytes(header)
            if shards[-1] and filled + size > most_bytes:
                shards.append([])
                filled = 0
            shards[-1].append((key, header))
            filled += size
        # Readers view tensors in place, so each must start at a multiple of its item size: wide items first.
        self._shards = [sorted(shard, key=lambda item: -_ITEM_BYTES[item[1].dtype]) for shard in shards]
        self._headers = [_header(shard) for shard in self._shards]
        self.places: dict[str, _Place] = {}
        for i, shard in enumerate(self._shards):
            start = len(self._headers[i])
            for key, header in shard:
                self.places[key] = _Place(shard=i, start=start, num_bytes=_num_bytes(header))
                start += _num_bytes(header)

    @property
    def num_bytes(self) -> int:
        """Size of all shards."""
        return sum(map(len, self._headers)) + sum(place.num_bytes for place in self.places.values())

    @property
    def names(self) -> Sequence[str]:
        """Names of the shards."""
        num = len(self._shards)
        return [SINGLE] if num == 1 else [f"model-{i + 1:05}-of-{num:05}.safetensors" for i in range(num)]

    @property
    def headers(self) -> Sequence[bytes]:
        """What each shard begins with."""
        return self._headers

    def index(self) -> str | None:
        """Returns the index that names each key's shard; None for a single one."""
        if len(self._shards) == 1:
            return None
        names = self.names
        total = sum(place.num_bytes for place in self.places.values())
        weight_map = {key: names[place.shard] for key, place in sorted(self.places.items())}
        return json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2) + "\n"


class ShardWriter:
    """Writes the shards of a plan; a context manager.

    Args:
        folder: must exist.
        plan: of all tensors.

    Raises:
        OSError: a file cannot be written.
    """

    def __init__(self, folder: Path, plan: ShardPlan) -> None:
        self._folder = folder
        self._plan = plan
        self._written = dict.fromkeys(plan.places, 0)
        self._stack = ExitStack()
        self._files: list[BinaryIO] = []

    def __enter__(self) -> Self:
        for name, header in zip(self._plan.names, self._plan.headers, strict=True):
            self._files.append(self._stack.enter_context((self._folder / name).open("wb")))
            self._files[-1].write(header)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if error is not None:
            return
        unwritten = [key for key, place in self._plan.places.items() if self._written[key] != place.num_bytes]
        assert not unwritten, f"{unwritten[:3]}: planned and not written"
        if (index := self._plan.index()) is not None:
            (self._folder / INDEX).write_text(index, encoding="utf-8")

    def write(self, key: str, tensor: Tensor) -> None:
        """Writes a tensor, or its next rows."""
        place = self._plan.places[key]
        data = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy()
        assert self._written[key] + data.nbytes <= place.num_bytes, key
        file = self._files[place.shard]
        file.seek(place.start + self._written[key])
        file.write(data.data)
        self._written[key] += data.nbytes


def _num_bytes(header: StoredTensor) -> int:
    return math.prod(header.shape) * _ITEM_BYTES[header.dtype]


def _header(tensors: Sequence[tuple[str, StoredTensor]]) -> bytes:
    values: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for key, header in tensors:
        end = start + _num_bytes(header)
        values[key] = {"dtype": header.dtype, "shape": header.shape, "data_offsets": (start, end)}
        start = end
    text = json.dumps(values, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
