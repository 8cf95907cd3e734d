"""Safetensors files of a model folder, read by key: one file or shards with an index.

On a processor files are mapped into memory; after a bounded amount of reading they are mapped anew, so that what was
read leaves the process. For a card they are read through a `Staging`, and opened once. Knows keys, types and
shapes; knows nothing of what the tensors mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import Tensor

from dgemma_engine.checkpoint.tensor_files import MappedFile, StagedFile, Staging, StoredTensor, TensorFile
from dgemma_engine.errors import CheckpointError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

# Small, since what is mapped counts as the process's memory.
MOST_MAPPED_BYTES = 32 * 2**20


class CheckpointReader:
    """The tensors of one folder; a context manager.

    Args:
        folder: holds `model.safetensors`, or shards with `model.safetensors.index.json`.
        staging: reads tensors to its device; None maps the files.

    Raises:
        CheckpointError: names the file or key that is missing or damaged, and what to do.
    """

    def __init__(self, folder: Path, *, staging: Staging | None = None) -> None:
        self._folder, self._staging = folder, staging
        self._open: dict[str, TensorFile] = {}
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
        return self._file(self._file_of[key]).header(key)

    def tensor(self, key: str, rows: slice | None = None) -> Tensor:
        """Returns a tensor that is here, or some of its rows: possibly a view of a mapped file, see `StagedFile`."""
        tensor = self._file(self._file_of[key]).tensor(key, rows)
        self._read_bytes += tensor.numel() * tensor.element_size()
        if self._staging is None and self._read_bytes > MOST_MAPPED_BYTES:
            self.release()
        return tensor

    def fill(self, target: Tensor, key: str) -> None:
        """Writes a tensor that is here, cast to the target's type, into `target`, whose shape it has."""
        file = self._file(self._file_of[key])
        if isinstance(file, StagedFile):
            # Without a second copy on the card: the embeddings of a large model are its largest tensor.
            file.fill(target, key)
        else:
            target.copy_(self.tensor(key))

    def release(self) -> None:
        """Closes all files; reading opens them again."""
        for file in self._open.values():
            file.close()
        if self._staging is not None:
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

    def _file(self, name: str) -> TensorFile:
        if name not in self._open:
            path = self._folder / name
            self._open[name] = MappedFile(path) if self._staging is None else StagedFile(path, self._staging)
        return self._open[name]
