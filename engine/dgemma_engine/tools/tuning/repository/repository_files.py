"""The source files of a repository that completion may read and that somebody wrote: a folder in, texts out.

Private files are never opened. Generated, minified and built files, tables of data, copies and links are left out.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dgemma_engine.postprocess.cursor_context import normalize_newlines
from dgemma_engine.tools.corpus.duplicates import Duplicates
from dgemma_engine.tools.corpus.filters import MAX_BYTES, Rejection, rejection
from dgemma_engine.tools.corpus.registries.languages import is_built
from dgemma_engine.tools.evaluation.holes.source_files import LANGUAGES, SKIPPED_FOLDERS, SourceFile

_PRIVATE = "private"
_REJECTED = frozenset({Rejection.SIZE, Rejection.GENERATED, Rejection.DATA})
# As many as tell that a file is private.
_HEAD_CHARACTERS = 4_096

WhyNotRead = Callable[[Path, str], str | None]
"""Of a path and, once it is known, the beginning of its text: why it must not be read; None where it may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryFiles:
    """What a repository holds.

    Attributes:
        files: in the order of their paths, which are relative to the root, with slashes.
        left_out: how many source files were left out, by reason.
    """

    files: tuple[SourceFile, ...]
    left_out: Mapping[str, int]


def read_repository(root: Path, why_not_read: WhyNotRead) -> RepositoryFiles:
    """Reads a repository.

    Args:
        root: its folder.
        why_not_read: decides for each file, before it is opened and once more by the beginning of its text.
    """
    files, left_out, duplicates = list[SourceFile](), Counter[str](), Duplicates()
    for path in _source_paths(root):
        name = path.relative_to(root).as_posix()
        text, reason = _text(path, PurePosixPath(name), why_not_read)
        if reason := reason or duplicates.rejection(text):
            left_out[str(reason)] += 1
        else:
            files.append(SourceFile(name=name, path=name, language=LANGUAGES[path.suffix.lower()], text=text))
    return RepositoryFiles(files=tuple(files), left_out=dict(sorted(left_out.items())))


def _source_paths(root: Path) -> Iterator[Path]:
    """Yields the files whose names are those of source files, folder by folder in the order of their names."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name not in SKIPPED_FOLDERS)
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix.lower() in LANGUAGES and not name.startswith(".") and not path.is_symlink():
                yield path


def _text(path: Path, relative: PurePosixPath, why_not_read: WhyNotRead) -> tuple[str, str | None]:
    """Returns a file's text, and why the file is left out; None where it is not."""
    if is_built(relative):
        return "", Rejection.GENERATED
    if why_not_read(path, ""):
        return "", _PRIVATE
    try:
        # A pipe or a device could make the reader wait for ever.
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return "", Rejection.SIZE
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return "", Rejection.ENCODING
    # Binary data may happen to be UTF-8; a NUL gives it away.
    if "\0" in text:
        return "", Rejection.ENCODING
    if why_not_read(path, text[:_HEAD_CHARACTERS]):
        return "", _PRIVATE
    text = normalize_newlines(text)
    reason = rejection(relative, text)
    return text, reason if reason in _REJECTED else None
