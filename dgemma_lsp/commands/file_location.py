"""FILE:LINE:COLUMN on a command line -> the file's text and an offset in it. Reads the file."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from dgemma_lsp.documents.positions import LineIndex, PositionEncoding

_MAX_BYTES = 32 << 20
_FORM = "FILE:LINE:COLUMN, both counted from 1, columns in characters"
_LANGUAGES = {
    ".c": "c",
    ".cpp": "cpp",
    ".go": "go",
    ".h": "c",
    ".html": "html",
    ".java": "java",
    ".js": "javascript",
    ".json": "json",
    ".md": "markdown",
    ".py": "python",
    ".pyi": "python",
    ".rs": "rust",
    ".sh": "shellscript",
    ".ts": "typescript",
    ".yaml": "yaml",
    ".yml": "yaml",
}


class TargetError(ValueError):
    """A target that names no position in a readable text; `str()` is one line with the correct form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A cursor in a file.

    Attributes:
        path: the file.
        line: 1-based.
        column: 1-based, in code points; one past the line's last character is its end.
    """

    path: Path
    line: int
    column: int

    @classmethod
    def parse(cls, argument: str) -> Target:
        """Reads FILE:LINE:COLUMN; FILE may contain colons.

        Raises:
            TargetError: it has another form.
        """
        path, _, column = argument.rpartition(":")
        path, _, line = path.rpartition(":")
        if not path or not _is_number(line) or not _is_number(column):
            raise TargetError(f"{argument!r} is not {_FORM}")
        return cls(path=Path(path), line=int(line), column=int(column))


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePosition:
    """A cursor in a text.

    Attributes:
        path: where the text came from.
        text: the whole text.
        offset: the cursor, in code points.
    """

    path: Path
    text: str
    offset: int


def read_place(target: Target) -> FilePosition:
    """Reads the file and finds the cursor in it.

    Raises:
        TargetError: the file cannot be read, is not UTF-8, or has no such line or column.
    """
    text = _read_text(target.path)
    lines = LineIndex(text)
    if not 1 <= target.line <= lines.num_lines:
        raise TargetError(f"{target.path}: no line {target.line}; it has lines 1 to {lines.num_lines}")
    start, end = lines.span(target.line - 1)
    if not 1 <= target.column <= end - start + 1:
        raise TargetError(
            f"{target.path}: no column {target.column} in line {target.line}; it has columns 1 to {end - start + 1}"
        )
    offset = lines.offset(target.line - 1, target.column - 1, PositionEncoding.UTF32)
    return FilePosition(path=target.path, text=text, offset=offset)


def language_of(path: Path) -> str:
    """Returns the LSP language id that a file's name suggests, or an empty string."""
    return _LANGUAGES.get(path.suffix.lower(), "")


def _read_text(path: Path) -> str:
    try:
        # Opening a named pipe blocks until something writes to it; those of a shell's `<(...)` have a writer.
        if stat.S_ISFIFO(path.stat().st_mode) and not path.is_relative_to("/dev"):
            raise TargetError(f"{path}: is a pipe, not a file; write its text into a file")
        with path.open("rb") as file:
            # Bounded: /dev/zero has no end.
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise TargetError(f"{path}: is longer than {_MAX_BYTES >> 20} MiB; name a shorter file")
        # A byte-order mark is no column in any editor.
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise TargetError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise TargetError(f"{path}: is a directory, not a file") from None
    except UnicodeDecodeError as error:
        raise TargetError(f"{path}: is not UTF-8 (byte {error.start}); convert it first") from None
    except TargetError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise TargetError(f"{path}: cannot be read ({reason})") from None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10
