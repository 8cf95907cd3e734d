"""A GGUF file: its metadata, and where the bytes of each tensor lie. Standard library only.

The file is mapped into memory and its header is walked once; long arrays, such as a vocabulary, are decoded on
demand. Every length is checked against the size of the file before it is used, so a truncated, foreign or
hostile file, or one part of several, ends in one `CheckpointError`. Knows nothing of what the tensors mean or how to
dequantise them.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dgemma_engine.errors import CheckpointError
from dgemma_engine.quantization.ggml_types import TENSOR_TYPES, TensorType, name_of_type

MAGIC = b"GGUF"
_T = TypeVar("_T")
_VERSIONS = (2, 3)
_MOST_DIMENSIONS = 4
_DEFAULT_ALIGNMENT = 32
# Metadata value types: struct's code of each number; a string is 8, an array 9.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_BOOLEAN, _STRING, _ARRAY = 7, 8, 9
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One tensor of a file.

    Attributes:
        type: how its values are stored.
        shape: rows first, as PyTorch orders dimensions (the file has them the other way round).
        start: its first byte in the file.
        num_bytes: its size.
    """

    type: TensorType
    shape: tuple[int, ...]
    start: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Array:
    """An array in the header that is decoded on demand."""

    element_type: int
    count: int
    start: int
    end: int


class GgufFile:
    """The header of a mapped file.

    Args:
        path: the file.

    Attributes:
        path: the same.
        tensors: what the file holds, by name.

    Raises:
        CheckpointError: the file cannot be read, is no GGUF, is truncated, or holds a type that cannot be dequantised.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be read ({error.strerror}); make it readable, or get it again"
            ) from error
        try:
            # Not a private mapping: a system would have to have memory for all of it, which a large model exceeds.
            self._bytes = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be mapped ({error}); name a GGUF file") from error
        finally:
            os.close(descriptor)
        self._position = 0
        self._values: dict[str, object] = {}
        self.tensors: dict[str, TensorInfo] = {}
        try:
            self._read_header()
        except (struct.error, OverflowError):
            raise self._truncated() from None
        except UnicodeDecodeError as error:
            raise self._damaged(f"text that is not UTF-8 ({error.reason})") from error

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str, kind: type[_T], default: _T | None = None) -> _T:
        """Returns one metadata value.

        Args:
            key: for example `llama.block_count`.
            kind: `str`, `int`, `float` or `bool`; an int will do for a float.
            default: for a file without the key; None makes that an error.

        Raises:
            CheckpointError: the key is missing, or its value is of another kind.
        """
        value = self._values.get(key, default)
        if kind is float and type(value) is int:
            value = float(value)
        if value is None:
            raise CheckpointError(f"{self.path}: lacks the key {key}; get a complete conversion of the model")
        if type(value) is not kind:
            raise CheckpointError(f"{self.path}: {key} must be {kind.__name__}, not {type(value).__name__}")
        return value

    def strings(self, key: str) -> list[str]:
        """Returns an array of strings; a missing key is an empty one.

        Raises:
            CheckpointError: the value is something else.
        """
        array = self._array(key, {_STRING})
        if array is None:
            return []
        texts, position, raw = list[str](), 0, self._bytes[array.start : array.end]
        try:
            for _ in range(array.count):
                start = position + 8
                position = start + _LENGTH.unpack_from(raw, position)[0]
                texts.append(raw[start:position].decode("utf-8"))
        except UnicodeDecodeError as error:
            raise self._damaged(f"{key} with text that is not UTF-8 ({error.reason})") from error
        return texts

    def integers(self, key: str) -> list[int]:
        """Returns an array of whole numbers; a missing key is an empty one.

        Raises:
            CheckpointError: the value is something else.
        """
        array = self._array(key, {number for number, code in _NUMBERS.items() if code not in "fd?"})
        if array is None:
            return []
        return list(struct.unpack_from(f"<{array.count}{_NUMBERS[array.element_type]}", self._bytes, array.start))

    def booleans(self, key: str) -> list[bool]:
        """Returns an array of truth values; a missing key is an empty one.

        Raises:
            CheckpointError: the value is something else.
        """
        array = self._array(key, {_BOOLEAN})
        return [] if array is None else [byte != 0 for byte in self._bytes[array.start : array.end]]

    def tensor_bytes(self, name: str, start: int = 0, end: int | None = None) -> bytearray:
        """Returns bytes `start` to `end` of a tensor that is in the file, in memory of their own."""
        info = self.tensors[name]
        end = info.num_bytes if end is None else end
        return bytearray(memoryview(self._bytes)[info.start + start : info.start + end])

    def release(self) -> None:
        """Drops the pages that were read from the process's memory; later reads map them again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._bytes.madvise(mmap.MADV_DONTNEED)

    def _array(self, key: str, element_types: set[int]) -> _Array | None:
        array = self._values.get(key)
        if array is None:
            return None
        if not isinstance(array, _Array) or array.element_type not in element_types:
            raise CheckpointError(f"{self.path}: {key} is not the array it should be; get the file again")
        return array

    def _read_header(self) -> None:
        if self._bytes[:4] != MAGIC:
            raise CheckpointError(f"{self.path}: is not a GGUF file; name one, or a model folder")
        self._position = 4
        version = self._number("I")
        if version not in _VERSIONS:
            raise CheckpointError(
                f"{self.path}: GGUF version {version} cannot be read, only little-endian files of version 2 or 3; "
                "convert the model anew"
            )
        num_tensors, num_keys = self._number("Q"), self._number("Q")
        # Each takes at least this many bytes, so an impossible count is refused before anything is allocated.
        self._require(num_tensors, 24)
        self._require(num_keys, 13)
        for _ in range(num_keys):
            key = self._text()
            if key in self._values:
                raise self._damaged(f"the key {key} twice")
            self._values[key] = self._value(self._number("I"))
        if (num_parts := self.get("split.count", int, 1)) > 1:
            raise CheckpointError(
                f"{self.path}: is one of {num_parts} parts of a model, which are not read together; join them with "
                "llama-gguf-split --merge, or get a file that is whole"
            )
        infos = [self._tensor_info() for _ in range(num_tensors)]
        alignment = self.get("general.alignment", int, _DEFAULT_ALIGNMENT)
        if alignment < 8 or alignment % 8:
            raise self._damaged(f"general.alignment {alignment}, which must be a multiple of 8")
        first = -(-self._position // alignment) * alignment
        for name, shape, number, offset in infos:
            self._add(name, shape, number, first + offset)

    def _tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        name, num_dimensions = self._text(), self._number("I")
        if num_dimensions > _MOST_DIMENSIONS:
            raise self._damaged(f"{name} with {num_dimensions} dimensions, at most {_MOST_DIMENSIONS}")
        shape = tuple(self._number("Q") for _ in range(num_dimensions))[::-1]
        return name, shape, self._number("I"), self._number("Q")

    def _add(self, name: str, shape: tuple[int, ...], number: int, start: int) -> None:
        kind = TENSOR_TYPES.get(number)
        if kind is None:
            known = ", ".join(sorted(one.name for one in TENSOR_TYPES.values()))
            raise CheckpointError(
                f"{self.path}: {name} is stored as {name_of_type(number)}, which cannot be read; "
                f"get a file with {known}"
            )
        if name in self.tensors:
            raise self._damaged(f"the tensor {name} twice")
        if not shape or min(shape) < 1 or shape[-1] % kind.block_values:
            raise self._damaged(f"{name} of shape {list(shape)}, which is no whole number of {kind.name} blocks")
        num_bytes = math.prod(shape) // kind.block_values * kind.block_bytes
        if start + num_bytes > len(self._bytes):
            raise self._truncated()
        self.tensors[name] = TensorInfo(type=kind, shape=shape, start=start, num_bytes=num_bytes)

    def _value(self, number: int) -> object:
        if number == _STRING:
            return self._text()
        if number == _ARRAY:
            return self._skip_array()
        return self._unpacked(self._code(number))

    def _skip_array(self) -> _Array:
        element_type, count = self._number("I"), self._number("Q")
        start = self._position
        if element_type == _STRING:
            self._require(count, 8)
            # The only work of opening a file that grows with its vocabulary: 20 ms for 100,000 strings.
            position, raw = start, self._bytes
            for _ in range(count):
                position += 8 + _LENGTH.unpack_from(raw, position)[0]
            self._position = position
            self._require(0, 1)
        else:
            size = struct.calcsize(self._code(element_type))
            self._require(count, size)
            self._position += count * size
        return _Array(element_type=element_type, count=count, start=start, end=self._position)

    def _code(self, number: int) -> str:
        if number not in _NUMBERS:
            raise self._damaged(f"a value of unknown type {number}")
        return _NUMBERS[number]

    def _text(self) -> str:
        size = self._number("Q")
        self._require(size, 1)
        self._position += size
        return self._bytes[self._position - size : self._position].decode("utf-8")

    def _number(self, code: str) -> int:
        number = self._unpacked(code)
        assert isinstance(number, int), code
        return number

    def _unpacked(self, code: str) -> object:
        (value,) = struct.unpack_from(f"<{code}", self._bytes, self._position)
        self._position += struct.calcsize(code)
        return value

    def _require(self, count: int, size: int) -> None:
        """Makes sure that the rest of the file has room for `count` items of at least `size` bytes."""
        if count * size > len(self._bytes) - self._position:
            raise self._truncated()

    def _truncated(self) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: truncated: it has {len(self._bytes)} bytes, fewer than its header promises; get it again"
        )

    def _damaged(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: damaged: it holds {what}; get it again")
