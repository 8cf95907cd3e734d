"""Tables of JSON objects on disk: `.jsonl`, `.jsonl.gz` and `.parquet` in, numbered rows out.

Every fault names the file, the line, the field and what to do. Knows nothing of what the rows mean.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from dgemma_engine.errors import EngineUnavailable, FormatError, WrongUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One object of a table.

    Attributes:
        file: where it was read.
        number: its line, or its row in a Parquet file; from 1.
        values: its fields.
    """

    file: Path
    number: int
    values: dict[str, Any]

    @property
    def where(self) -> str:
        """File and line, as messages name them."""
        return f"{self.file}:{self.number}"

    def text(self, name: str) -> str:
        """Returns a field that must be text.

        Raises:
            FormatError: it is missing or something else.
        """
        value = self._value(name)
        if not isinstance(value, str):
            raise FormatError(f"{self.where}: field `{name}` must be text, got {type(value).__name__}; correct it")
        return value

    def number_of(self, name: str) -> float:
        """Returns a field that must be a number or a truth value.

        Raises:
            FormatError: it is missing or something else.
        """
        value = self._value(name)
        if not isinstance(value, int | float):
            raise FormatError(f"{self.where}: field `{name}` must be a number, got {type(value).__name__}; correct it")
        return float(value)

    def _value(self, name: str) -> object:
        if name not in self.values:
            names = ", ".join(sorted(self.values)) or "none"
            raise FormatError(f"{self.where}: field `{name}` is missing (its fields: {names}); add it")
        return self.values[name]


def read_rows(path: Path) -> Iterator[TableRow]:
    """Yields the rows of a file.

    Args:
        path: `.parquet`, `.gz` (JSON lines, compressed) or anything else (JSON lines).

    Raises:
        WrongUsage: the file does not exist.
        FormatError: the file cannot be read, or a line is no JSON object.
        EngineUnavailable: it is Parquet and pyarrow is not installed.
    """
    return _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)


def _json_rows(path: Path) -> Iterator[TableRow]:
    try:
        with closing(_open(path)) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield TableRow(file=path, number=number, values=_json_object(line, f"{path}:{number}"))
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise FormatError(f"{path}: is not a complete gzip file ({error}); make it again, or rename it") from error
    except FileNotFoundError as error:
        raise WrongUsage(f"{path}: no such file; name another file") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror or error}); name another file") from error


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _json_object(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: is not UTF-8 ({error.reason}); convert the file") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: is no JSON ({error}); write one JSON object a line") from error
    if not isinstance(value, dict):
        raise FormatError(f"{where}: must be a JSON object, got {type(value).__name__}; write one JSON object a line")
    return cast(dict[str, Any], value)


def _parquet_rows(path: Path) -> Iterator[TableRow]:
    if importlib.util.find_spec("pyarrow") is None:
        raise EngineUnavailable(f"{path}: reading Parquet needs pyarrow; run: pip install 'dgemma-lsp[eval]'")
    from pyarrow import parquet

    try:
        rows = cast(list[dict[str, Any]], parquet.read_table(path).to_pylist())
    except FileNotFoundError as error:
        raise WrongUsage(f"{path}: no such file; name another file") from error
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be read as Parquet ({error}); make it again, or rename it") from error
    for number, values in enumerate(rows, 1):
        yield TableRow(file=path, number=number, values=values)
