"""Safetensors files of a model folder, read by key: one file or shards with an index.

Files are mapped into memory; after a bounded amount of reading they are closed and opened anew, so that what was read
leaves the process. Knows keys, types and shapes; knows nothing of what the tensors mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from torch import Tensor

from dgemma_engine.errors import CheckpointError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

# On a processor small, since what is mapped counts as the process's memory; a card's model has thousands of tensors,
# and each opening of a file reads their list anew.
MOST_MAPPED_BYTES: Mapping[str, int] = {"cpu": 32 * 2**20, "cuda": 512 * 2**20}
# By safetensors' names.
_ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """What a file's header says of one tensor: safetensors' name of its type, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Size of the tensor, of a type that weights are stored in."""
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


class CheckpointReader:
    """The tensors of one folder; a context manager.

    Args:
        folder: holds `model.safetensors`, or shards with `model.safetensors.index.json`.
        most_mapped_bytes: read before the files are closed and opened anew.

    Raises:
        CheckpointError: names the file or key that is missing or damaged, and what to do.
    """

    def __init__(self, folder: Path, *, most_mapped_bytes: int = MOST_MAPPED_BYTES["cpu"]) -> None:
        self._folder = folder
        self._most_mapped_bytes = most_mapped_bytes
        self._open: dict[str, Any] = {}
        self._read_bytes = 0
        self._file_of = (
            self._indexed() if (folder / INDEX).exists() else dict.fromkeys(self._file(SINGLE).keys(), SINGLE)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __contains__(self, key: str) -> bool:
        return key in self._file_of

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum((self._folder / name).stat().st_size for name in set(self._file_of.values()))

    def header(self, key: str) -> StoredTensor:
        """Returns type and shape of a tensor that is here."""
        view = self._file(self._file_of[key]).get_slice(key)
        return StoredTensor(dtype=view.get_dtype(), shape=tuple(view.get_shape()))

    def tensor(self, key: str, rows: slice | None = None) -> Tensor:
        """Returns a tensor that is here, or some of its rows; on the CPU, possibly a view of the file."""
        file = self._file(self._file_of[key])
        tensor: Tensor = file.get_tensor(key) if rows is None else file.get_slice(key)[rows]
        self._read_bytes += tensor.numel() * tensor.element_size()
        if self._read_bytes > self._most_mapped_bytes:
            self.release()
        return tensor

    def release(self) -> None:
        """Closes all files; reading opens them again."""
        for file in self._open.values():
            file.__exit__(None, None, None)
        self._open.clear()
        self._read_bytes = 0

    def _indexed(self) -> dict[str, str]:
        path = self._folder / INDEX
        try:
            weight_map: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error}); download it again") from error
        present = {name: set(self._file(name).keys()) for name in sorted(set(weight_map.values()))}
        for key, name in weight_map.items():
            if key not in present[name]:
                raise CheckpointError(
                    f"{self._folder / name}: lacks {key}, which {INDEX} promises; download both again"
                )
        return weight_map

    def _file(self, name: str) -> Any:
        if name not in self._open:
            path = self._folder / name
            try:
                self._open[name] = safe_open(path, "pt").__enter__()
            except FileNotFoundError:
                raise CheckpointError(f"{path}: missing; download the whole model folder again") from None
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{path}: truncated or damaged ({error}); download it again") from error
        return self._open[name]
