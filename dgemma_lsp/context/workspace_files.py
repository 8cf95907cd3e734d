"""Other files of the workspace: their texts, and the chunks and definitions found in them, in one bounded store.

A file is read and analysed once for each version. Reads disks in a thread, so that a slow one blocks nothing else.
Writes nothing.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dgemma_engine.bounded_store import BoundedStore
from dgemma_engine.postprocess.cursor_context import normalize_newlines

from dgemma_lsp.context.chunks import Chunk

# From a path and, once it is read, the beginning of its text: why it must not be read as context; None where it may be.
WhyNotRead = Callable[[Path, str], str | None]

# A longer text that is open is not read either, by anything that looks at other documents.
MOST_CHARS = 512 * 1024

_MOST_BYTES = MOST_CHARS
_MOST_FILES = 64
_MOST_KEPT_BYTES = 16 * 1024 * 1024
# Some 10 KiB each, mostly words.
_CHUNK_BYTES = 10 * 1024
# A file is imported with a few sets of names at a time.
_MOST_NAME_SETS = 4
# Windows has no such devices, and would change line ends.
_READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
# As many as tell that a file is private.
_HEAD_CHARS = 4_096


@dataclass(slots=True, kw_only=True, eq=False)
class FileFacts:
    """What is kept of one version of a file.

    Attributes:
        digest: hash of its text.
        stamp: modification time and size on disk; None for a text that an editor has open.
        text: its text on disk, with `\\n` line ends; empty for a text that an editor has open.
        chunks: its chunks; None until it is cut.
        definitions: definitions by name, for each set of names that was asked for.
    """

    digest: int
    stamp: tuple[int, int] | None = None
    text: str = ""
    chunks: Sequence[Chunk] | None = None
    definitions: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict[tuple[str, ...], dict[str, str]])

    def define(self, names: tuple[str, ...], texts: dict[str, str]) -> None:
        """Keeps the definitions of a set of names; drops the oldest set where there are too many."""
        self.definitions[names] = texts
        if len(self.definitions) > _MOST_NAME_SETS:
            del self.definitions[next(iter(self.definitions))]

    @property
    def num_bytes(self) -> int:
        """Estimated size in memory, definitions left out: they are few and short."""
        return len(self.text) + _CHUNK_BYTES * len(self.chunks or ())


class WorkspaceFiles:
    """Reads files and keeps facts about them; drops the least recently used.

    Args:
        why_not_read: decides for each file, before it is read and once more by the beginning of its text.
    """

    def __init__(self, why_not_read: WhyNotRead) -> None:
        self._why_not_read = why_not_read
        self._files: BoundedStore[Path, FileFacts] = BoundedStore(_MOST_FILES, max_weight=_MOST_KEPT_BYTES)

    @property
    def kept(self) -> dict[Path, FileFacts]:
        """What is kept, by path."""
        return dict(self._files.items())

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
        if path is None or self._why_not_read(path, ""):
            return None
        facts = await asyncio.to_thread(_read, path, self._files.get(path))
        if facts is None or not self.allows(path, facts.text):
            self._files.pop(path)
            return None
        self.keep(path, facts)
        return path, facts.text

    def allows(self, path: Path, text: str) -> bool:
        """Whether a text that is known may be used as context: it is not private, and has at most 512 Ki characters."""
        return len(text) <= MOST_CHARS and not self._why_not_read(path, text[:_HEAD_CHARS])

    def facts(self, path: Path, text: str) -> FileFacts:
        """Returns what is kept of a text; empty facts where it is new."""
        facts, digest = self._files.get(path), hash(text)
        return facts if facts is not None and facts.digest == digest else FileFacts(digest=digest)

    def keep(self, path: Path, facts: FileFacts) -> None:
        """Keeps what was found in a file, in place of what was found in another version of it."""
        self._files.put(path, facts, weight=facts.num_bytes)


def _first_file(paths: list[Path], root: Path | None) -> Path | None:
    path = next((path for path in paths if _is_file(path)), None)
    is_inside = path is None or root is None or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
    return path if is_inside else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _read(path: Path, kept: FileFacts | None) -> FileFacts | None:
    try:
        # Opening a pipe or a device could block without end.
        with os.fdopen(os.open(path, _READING), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
                return None
            stamp = status.st_mtime_ns, status.st_size
            if kept is not None and kept.stamp == stamp:
                return kept
            text = file.read(_MOST_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    if "\0" in text:
        return None
    text = normalize_newlines(text)
    return FileFacts(digest=hash(text), stamp=stamp, text=text)
