"""Texts of files on disk that may be read: a few are kept, none is read twice while it stays as it is.

Reads beside the event loop, so that a slow disk holds up nothing else. Writes nothing.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

# Of a path and, once it is known, the beginning of its text: whether it may be read as context.
MayRead = Callable[[Path, str], bool]

# A longer text that is open is not read either, by anything that looks at other documents.
MOST_CHARS = 512 * 1024

_MOST_BYTES = MOST_CHARS
_MOST_FILES = 64
_MOST_KEPT_CHARS = 8 * 1024 * 1024
# As many as tell that a file is private.
_HEAD_CHARS = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    stamp: tuple[int, int]
    text: str


class ProjectFiles:
    """Reads files.

    Args:
        may_read: decides for each file, before it is read and once more by the beginning of its text.
    """

    def __init__(self, may_read: MayRead) -> None:
        self._may_read = may_read
        self._kept: OrderedDict[Path, _Kept] = OrderedDict()

    async def first(self, paths: Iterable[Path], *, root: Path | None = None) -> tuple[Path, str] | None:
        """Returns the first file that is there, with its text.

        Args:
            paths: where to look.
            root: a folder; a link that leads out of it is not followed. None follows every link.

        Returns:
            None if there is none, or the first must not or cannot be used: private, outside of `root`, not UTF-8, more
            than 512 KiB.
        """
        path = await asyncio.to_thread(_first_file, list(paths), root)
        if path is None or not self._may_read(path, ""):
            return None
        kept = self._kept.pop(path, None)
        read = await asyncio.to_thread(_read, path, kept)
        if read is None or not self.allows(path, read.text):
            return None
        self._keep(path, read)
        return path, read.text

    def allows(self, path: Path, text: str) -> bool:
        """Whether a text that is known may be used as context: it is not private, and has at most 512 Ki characters."""
        return len(text) <= MOST_CHARS and self._may_read(path, text[:_HEAD_CHARS])

    def _keep(self, path: Path, read: _Kept) -> None:
        self._kept[path] = read
        while len(self._kept) > _MOST_FILES or (
            len(self._kept) > 1 and sum(len(kept.text) for kept in self._kept.values()) > _MOST_KEPT_CHARS
        ):
            self._kept.popitem(last=False)


def _first_file(paths: list[Path], root: Path | None) -> Path | None:
    path = next((path for path in paths if _is_file(path)), None)
    is_inside = path is None or root is None or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
    return path if is_inside else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _read(path: Path, kept: _Kept | None) -> _Kept | None:
    try:
        # A pipe or a device could make the reader wait for ever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
                return None
            stamp = status.st_mtime_ns, status.st_size
            if kept is not None and kept.stamp == stamp:
                return kept
            text = file.read(_MOST_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    return None if "\0" in text else _Kept(stamp=stamp, text=text.replace("\r\n", "\n").replace("\r", "\n"))
