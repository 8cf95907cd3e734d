"""The source files of a repository that completion may read and that a person wrote: a folder in, texts out.

Private files are never opened. Generated, minified and built files, tables of data, copies and links are left out. Of a
repository with more than `MAX_FILES` files or `MAX_TOTAL_BYTES` those that were changed last are read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dgemma_engine.postprocess.cursor_context import normalize_newlines
from dgemma_engine.repository_adapters.training_folder import size_of
from dgemma_engine.tools.corpus.duplicates import Duplicates
from dgemma_engine.tools.corpus.filters import MAX_BYTES, Rejection, rejection
from dgemma_engine.tools.corpus.registries.languages import is_built
from dgemma_engine.tools.evaluation.holes.source_files import LANGUAGES, SKIPPED_FOLDERS, SourceFile

MAX_FILES = 4_000
"""Most files that are read."""
MAX_TOTAL_BYTES = 32 * 2**20
"""Most bytes that are read of all files together."""

_MAX_ENTRIES = 500_000
_PRIVATE = "private or ignored"
_REJECTED = frozenset({Rejection.SIZE, Rejection.GENERATED, Rejection.DATA})
# As many as the check for private text reads.
_HEAD_CHARACTERS = 4_096

WhyNotRead = Callable[[Path, str], str | None]
"""A path and, once it is known, the beginning of its text -> why it must not be read; None where it may be."""
ChangedAt = Callable[[Sequence[str]], Sequence[float]]
"""Names relative to the root -> when each was last changed, seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryFiles:
    """What a repository holds.

    Attributes:
        files: in the order of their paths, which are relative to the root, with slashes.
        changed_s: when each was last changed, seconds since the epoch.
        left_out: how many source files were left out, by reason.
        num_not_read: how many more source files there are, changed before those that were read.
    """

    files: tuple[SourceFile, ...]
    changed_s: tuple[float, ...]
    left_out: Mapping[str, int]
    num_not_read: int = 0


def read_repository(root: Path, why_not_read: WhyNotRead, changed_at: ChangedAt) -> RepositoryFiles:
    """Reads a repository.

    Args:
        root: its folder.
        why_not_read: decides for each file, before it is opened and once more by the beginning of its text.
        changed_at: see `ChangedAt`.
    """
    names = [path.relative_to(root).as_posix() for path in _source_paths(root)]
    times = dict(zip(names, changed_at(names), strict=True))
    chosen = _changed_last(root, times)
    files, left_out, duplicates = list[SourceFile](), Counter[str](), Duplicates()
    # In the order of paths, not of times: which of two copies is read must not change while one is edited.
    for name in (name for name in names if name in chosen):
        path = root / name
        text, reason = _text(path, PurePosixPath(name), why_not_read)
        if reason := reason or duplicates.rejection(text):
            left_out[str(reason)] += 1
        else:
            files.append(SourceFile(name=name, path=name, language=LANGUAGES[path.suffix.lower()], text=text))
    return RepositoryFiles(
        files=tuple(files),
        changed_s=tuple(times[file.path] for file in files),
        left_out=dict(sorted(left_out.items())),
        num_not_read=len(names) - len(chosen),
    )


def _changed_last(root: Path, times: Mapping[str, float]) -> frozenset[str]:
    """Returns the names of the files that were changed last, as many as are read; built ones come after all others."""
    chosen, num_bytes = list[str](), 0
    for name in sorted(times, key=lambda name: (is_built(PurePosixPath(name)), -times[name], name)):
        # One that is larger than `MAX_BYTES` is not opened.
        num_bytes += min(size_of(root / name), MAX_BYTES)
        if len(chosen) == MAX_FILES or num_bytes > MAX_TOTAL_BYTES:
            break
        chosen.append(name)
    return frozenset(chosen)


def _source_paths(root: Path) -> Iterator[Path]:
    """Yields the files whose names are those of source files, folder by folder in the order of their names."""
    num_entries = 0
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name not in SKIPPED_FOLDERS)
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix.lower() in LANGUAGES and not name.startswith(".") and not path.is_symlink():
                yield path
        num_entries += len(subfolders) + len(names)
        if num_entries > _MAX_ENTRIES:
            break


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
