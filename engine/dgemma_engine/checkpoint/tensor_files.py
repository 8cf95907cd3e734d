"""One safetensors file, read by key: mapped into memory, or piece by piece through page-locked buffers to a card.

A copy out of a mapped file faults in each of its pages and goes through a buffer of the driver. A `StagedFile` reads up
to 64 MiB at once out of the page cache into a buffer that the card copies from by itself while the next one is filled,
stays open, and leaves nothing in the process. Knows bytes, types and shapes; knows no parameters.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dgemma_engine.errors import CheckpointError

BUFFER_BYTES = 64 * 2**20
# Most values of a tensor that is read to the host, such as a shape or one scale: a round trip to the card costs more.
_MOST_HOST_VALUES = 8
_LENGTH_BYTES, _MOST_HEADER_BYTES = 8, 100_000_000
_METADATA = "__metadata__"
# By safetensors' names.
_DTYPES = {
    "F64": torch.float64, "I64": torch.int64, "F32": torch.float32, "I32": torch.int32, "BF16": torch.bfloat16,
    "F16": torch.float16, "I16": torch.int16, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool, "U16": torch.uint16, "U32": torch.uint32,
    "U64": torch.uint64, "F8_E8M0": torch.float8_e8m0fnu,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """What a file's header says of one tensor: safetensors' name of its type, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Size of the tensor, of a type that weights are stored in."""
        return math.prod(self.shape) * _DTYPES[self.dtype].itemsize


class MappedFile:
    """A file that is mapped while its tensors are read, which are on the CPU, possibly views of it.

    The library maps the file as writable, which a system with less memory refuses: the file is then read instead.

    Args:
        path: of the file.

    Raises:
        CheckpointError: the file is missing, truncated or no safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None
        try:
            with path.open("rb") as file:
                self._places = _places(file.fileno())
        except FileNotFoundError:
            raise _missing(path) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _damaged(path, error) from error

    def keys(self) -> Iterable[str]:
        """Returns the names of its tensors."""
        return self._places.keys()

    def header(self, key: str) -> StoredTensor:
        """Returns type and shape of a tensor that is here."""
        return self._places[key].stored

    def tensor(self, key: str, rows: slice | None = None) -> Tensor:
        """Returns a tensor that is here, or some of its rows."""
        if self._file is None:
            self._file = self._opened()
        if isinstance(self._file, StagedFile):
            return self._file.tensor(key, rows)
        return self._file.get_tensor(key) if rows is None else self._file.get_slice(key)[rows]

    def close(self) -> None:
        """Ends the mapping; the next tensor that is read begins it anew."""
        if self._file is not None:
            self._file.close() if isinstance(self._file, StagedFile) else self._file.__exit__(None, None, None)
        self._file = None

    def _opened(self) -> Any:
        try:
            return safe_open(self._path, "pt").__enter__()
        except (OSError, SafetensorError) as error:
            raise _damaged(self._path, error) from error
        except RuntimeError:  # what torch raises where the system will not map it
            return StagedFile(self._path, Staging(torch.device("cpu")))


class _Buffer:
    """Page-locked memory, and the event after which the card has copied its last content."""

    def __init__(self, size: int, device: torch.device) -> None:
        self._device = device
        self.bytes_N = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self.view: memoryview = self.bytes_N.numpy().data
        self._copied: torch.cuda.Event | None = None

    def release(self) -> None:
        """Records that every copy out of the buffer was started."""
        if self._device.type == "cuda":
            self._copied = torch.cuda.Event(blocking=True)
            self._copied.record(torch.cuda.current_stream(self._device))

    def claim(self) -> None:
        """Waits until every copy out of the buffer is over."""
        if self._copied is not None:
            self._copied.synchronize()
            self._copied = None


class Staging:
    """Copies tensors from files to a device through two buffers.

    Args:
        device: where tensors go.
        buffer_bytes: size of each of two buffers, a multiple of 16.
    """

    def __init__(self, device: torch.device, *, buffer_bytes: int = BUFFER_BYTES) -> None:
        if buffer_bytes <= 0 or buffer_bytes % 16:
            raise ValueError(f"{buffer_bytes=} must be a positive multiple of 16")
        self.device = device
        self._size = buffer_bytes
        self._own, self._other = (_Buffer(buffer_bytes, device) for _ in range(2))
        self._used = 0

    def copy(self, file: int, offset: int, target: Tensor, dtype: torch.dtype) -> None:
        """Copies numbers of a file into a tensor, cast to its type; they may arrive after this returns.

        Args:
            file: its descriptor.
            offset: byte in the file at which they begin.
            target: contiguous, on the device.
            dtype: of the numbers in the file.

        Raises:
            OSError: the file ends before them, or cannot be read.
        """
        flat_N, item = target.view(-1), dtype.itemsize
        done = 0
        while done < len(flat_N):
            count = min(len(flat_N) - done, self._size // item)
            piece = self._read(file, offset + done * item, count * item)
            flat_N[done : done + count].copy_(piece.view(dtype), non_blocking=True)
            done += count

    def _read(self, file: int, offset: int, num_bytes: int) -> Tensor:
        """Returns bytes of a file, in a buffer that is not overwritten until two more were filled."""
        # Views of numbers must begin at a multiple of their size.
        start = -(-self._used // 16) * 16
        if start + num_bytes > self._size:
            self._own.release()
            self._own, self._other, start = self._other, self._own, 0
            self._own.claim()
        self._used, done = start + num_bytes, 0
        while done < num_bytes:
            count = os.preadv(file, [self._own.view[start + done : start + num_bytes]], offset + done)
            if not count:
                raise OSError("the file ends too early")
            done += count
        return self._own.bytes_N[start : start + num_bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a tensor lies.

    Attributes:
        stored: its type and shape.
        offset: of its first byte in the file.
    """

    stored: StoredTensor
    offset: int


class StagedFile:
    """A file that is read, not mapped; its tensors are on the staging's device.

    Args:
        path: of the file.
        staging: copies its tensors to the device.

    Raises:
        CheckpointError: the file is missing, truncated or no safetensors file.
    """

    def __init__(self, path: Path, staging: Staging) -> None:
        self._path, self._staging = path, staging
        try:
            self._file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError:
            raise _missing(path) from None
        except OSError as error:
            raise _damaged(path, error) from error
        try:
            self._places = _places(self._file)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self.close()
            raise _damaged(path, error) from error

    def keys(self) -> Iterable[str]:
        """See `MappedFile.keys`."""
        return self._places.keys()

    def header(self, key: str) -> StoredTensor:
        """See `MappedFile.header`."""
        return self._places[key].stored

    def tensor(self, key: str, rows: slice | None = None) -> Tensor:
        """See `MappedFile.tensor`; one of at most 8 numbers is on the CPU, where they are read one by one."""
        stored = self._places[key].stored
        shape = torch.Size(stored.shape)
        first = 0
        if rows is not None:
            first, end, _step = rows.indices(shape[0])
            shape = torch.Size((max(0, end - first), *shape[1:]))
        dtype = _DTYPES[stored.dtype]
        if shape.numel() <= _MOST_HOST_VALUES:
            return self._on_host(key, first, shape, dtype)
        target = torch.empty(shape, dtype=dtype, device=self._staging.device)
        self._copy(key, first * shape[1:].numel(), target)
        return target

    def fill(self, target: Tensor, key: str) -> None:
        """Writes a tensor, cast to the target's type, into `target`, whose shape it has."""
        if target.is_contiguous() and target.device == self._staging.device:
            self._copy(key, 0, target)
        else:
            target.copy_(self.tensor(key))

    def close(self) -> None:
        """See `MappedFile.close`."""
        os.close(self._file)

    def _on_host(self, key: str, first: int, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        size = shape.numel() * dtype.itemsize
        offset = self._places[key].offset + first * shape[1:].numel() * dtype.itemsize
        content = bytearray(os.pread(self._file, size, offset))
        if len(content) < size:
            raise _damaged(self._path, OSError("the file ends too early"))
        return torch.frombuffer(content, dtype=dtype).view(shape) if size else torch.empty(shape, dtype=dtype)

    def _copy(self, key: str, first: int, target: Tensor) -> None:
        place = self._places[key]
        dtype = _DTYPES[place.stored.dtype]
        try:
            self._staging.copy(self._file, place.offset + first * dtype.itemsize, target, dtype)
        except OSError as error:
            raise _damaged(self._path, error) from error


TensorFile = MappedFile | StagedFile


def _places(file: int) -> dict[str, _Place]:
    """Returns the tensors that the header of a file lists.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError: it is no whole safetensors file.
    """
    length = int.from_bytes(os.pread(file, _LENGTH_BYTES, 0), "little")
    if not 0 < length <= _MOST_HEADER_BYTES:
        raise ValueError(f"its header has {length} bytes")
    listed: dict[str, Any] = json.loads(os.pread(file, length, _LENGTH_BYTES).decode())
    data, size = _LENGTH_BYTES + length, os.fstat(file).st_size
    found: dict[str, _Place] = {}
    for key, entry in listed.items():
        if key == _METADATA:
            continue
        begin, end = entry["data_offsets"]
        stored = StoredTensor(dtype=entry["dtype"], shape=tuple(entry["shape"]))
        if not 0 <= begin <= end == begin + stored.num_bytes or data + end > size:
            raise ValueError(f"{key} is not whole")
        found[key] = _Place(stored=stored, offset=data + begin)
    return found


def _missing(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: missing; download the whole model folder again")


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path}: truncated or damaged ({error}); download it again")
