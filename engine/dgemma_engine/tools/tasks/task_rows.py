"""Rows of a task: lines of JSON in, parts of given and free text out, checked; no tokens.

A line is `{"parts": [{"given": "text"}, {"free": "text"}, ...]}`. The text of a free part is what is to be found; a
row that is only to be solved may have a number of tokens in its place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dgemma_engine.errors import TaskError, WrongUsage

_KEYS = ("given", "free")


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a row.

    Attributes:
        kind: whether its text stands there, or is to be found.
        text: of the part; None of a free one that is only to be solved.
        num_tokens: of a free part without text.
    """

    kind: Literal["given", "free"]
    text: str | None
    num_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One row.

    Attributes:
        parts: at least one of them is free.
        place: the file and the line, for messages.
    """

    parts: tuple[Part, ...]
    place: str


def read_rows(path: Path) -> Iterator[TaskRow]:
    """Yields the rows of a file; blank lines are left out.

    Raises:
        WrongUsage: the file does not exist.
        TaskError: the file cannot be read, or a line is no row; the message names the line.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _row(line, f"{path}: line {number}")
    except FileNotFoundError as error:
        raise WrongUsage(f"{path}: no such file; name a file of task rows, one JSON object a line") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise TaskError(
            f"{path}: cannot be read ({reason}); name a file of task rows, one JSON object a line"
        ) from error


def fingerprint(path: Path) -> str:
    """Returns the SHA-256 of a task's file.

    Raises:
        WrongUsage: the file does not exist.
        TaskError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise WrongUsage(f"{path}: no such file; name a file of task rows, one JSON object a line") from error
    except OSError as error:
        raise TaskError(f"{path}: cannot be read ({error.strerror}); name a file of task rows") from error


def _row(line: str, place: str) -> TaskRow:
    try:
        values: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise TaskError(f'{place} is no JSON; write {{"parts": [{{"given": "text"}}, {{"free": "text"}}]}}') from None
    parts = values.get("parts") if isinstance(values, dict) else None
    if not isinstance(parts, list) or not parts:
        raise TaskError(f'{place} has no "parts"; list the given and the free text of the row there')
    row = TaskRow(tuple(_part(part, place) for part in parts), place)
    if not any(part.kind == "free" for part in row.parts):
        raise TaskError(f'{place} has no free text; at least one part must be {{"free": "text"}}')
    return row


def _part(values: Any, place: str) -> Part:
    match values:
        case {"given": str(text), **others} if not others:
            return Part("given", text)
        case {"free": str(text), **others} if not others and text:
            return Part("free", text)
        case {"free": int(number), **others} if not others and number > 0 and number is not True:
            return Part("free", None, number)
        case _:
            raise TaskError(
                f'{place} has a part that is neither {{"given": "text"}} nor {{"free": "text"}} nor {{"free": 3}}: '
                f"{json.dumps(values)[:60]}"
            )
