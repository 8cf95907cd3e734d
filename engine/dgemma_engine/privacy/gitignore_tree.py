"""The ignore file above a path that names it: reads `.gitignore`, `.git/info/exclude` and `.dgemmaignore` as git would.

Nesting, negation and folders are as in git; `.dgemmaignore` comes after `.gitignore` of the same folder. It counts in
every folder above a path, `.gitignore` from the repository's top down; without a repository from below the home folder
down. Looks upwards only: the size of a tree costs nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dgemma_engine.path_style import HERE, PathStyle
from dgemma_engine.privacy.gitignore_file import Flaw, IgnoreFile, entries_of

_GIT, _OURS, _EXCLUDE = ".gitignore", ".dgemmaignore", ".git/info/exclude"
NAMES = (_GIT, _OURS)
_MAX_LEVELS = 64
_MAX_FILE_BYTES = 256 * 1024
_MAX_REMEMBERED = 1_024
_RECHECK_S = 1.0
_MAX_SHOWN_CHARS = 60
_MAX_SHOWN_LINES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoreMatch:
    """The line of an ignore file that names a path.

    Attributes:
        file: the ignore file's name.
        line: the line.
    """

    file: str
    line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """One ignore file as it was found: where its lines count from, and what tells whether it changed."""

    path: str
    base: str
    stamp: tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decision:
    checked_s: float
    sources: tuple[_Source, ...]
    match: IgnoreMatch | None


class IgnoreTree:
    """Reads ignore files when they are first needed, and again when they have changed.

    Args:
        home: the user's home folder.
        clock: seconds that never go backwards.
        report: called, when a file is read, with one sentence about lines that do not mean what they seem to.
        style: of the system's paths; where the system compares names without case, patterns do.
    """

    def __init__(
        self,
        *,
        home: Path,
        clock: Callable[[], float],
        report: Callable[[str], None] = lambda _message: None,
        style: PathStyle = HERE,
    ) -> None:
        self._style = style
        self._home = style.comparable(str(home))
        self._report = report
        self._clock = clock
        self._files: dict[str, tuple[tuple[int, int, int], IgnoreFile]] = {}
        self._verdicts: dict[str, _Decision] = {}

    def match(self, path: str) -> IgnoreMatch | None:
        """Returns the line that names a file, or a folder that it is in; None where no line does.

        A file that cannot be read, or is longer than 256 KiB, names everything below its folder.

        Args:
            path: absolute, as `PathStyle.comparable` writes it; need not exist.
        """
        now = self._clock()
        known = self._verdicts.get(path)
        if known and now - known.checked_s < _RECHECK_S:
            return known.match
        sources = tuple(self._sources(path))
        match = known.match if known and known.sources == sources else self._decide(path, sources)
        if len(self._verdicts) >= _MAX_REMEMBERED:
            self._verdicts.clear()
        self._verdicts[path] = _Decision(checked_s=now, sources=sources, match=match)
        return match

    def forget(self) -> None:
        """Reads the ignore files again when they are next needed."""
        self._verdicts.clear()

    def _sources(self, file: str) -> list[_Source]:
        """Returns the ignore files that count for a file, the weakest first."""
        found: list[_Source] = []
        in_repository = True
        for folder in [str(parent) for parent in PurePosixPath(file).parents][:_MAX_LEVELS]:
            if not (native := self._style.native(folder)):
                # Above the drives of Windows there is no folder.
                continue
            for name in (_OURS, _GIT, _EXCLUDE) if in_repository else (_OURS,):
                path = f"{native}/{name}"
                try:
                    # Not through `Path`, which puts every part of every path into the interpreter's table of names.
                    status = os.stat(path)  # noqa: PTH116
                except (OSError, ValueError):
                    continue
                # A pipe of that name would be waited for without end.
                if stat.S_ISREG(status.st_mode):
                    stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
                    found.append(_Source(path=path, base=folder, stamp=stamp))
            in_repository = in_repository and not os.path.lexists(f"{native}/.git")
        if in_repository:
            # There is no repository: what stands in the home folder or above it was not written for this path.
            found = [source for source in found if source.path.endswith(f"/{_OURS}") or not self._is_above(source.base)]
        return found[::-1]

    def _is_above(self, folder: str) -> bool:
        home, above = self._style.folded(self._home), self._style.folded(folder)
        return folder == "/" or f"{home}/".startswith(f"{above}/")

    def _decide(self, path: str, sources: tuple[_Source, ...]) -> IgnoreMatch | None:
        full = self._style.folded(path).strip("/")
        for entry in entries_of(full):
            for source in reversed(sources):
                base = self._style.folded(source.base).strip("/")
                relative = entry[len(base) + 1 :] if base else entry
                if not relative or (base and not entry.startswith(f"{base}/")):
                    continue
                rule = self._file(source).deciding(relative)
                if rule is not None:
                    if rule.names:
                        return IgnoreMatch(file=source.path.rpartition("/")[2], line=rule.text)
                    break
        return None

    def _file(self, source: _Source) -> IgnoreFile:
        known = self._files.get(source.path)
        if known and known[0] == source.stamp:
            return known[1]
        if len(self._files) >= _MAX_REMEMBERED:
            self._files.clear()
        file = _read(source.path, self._style)
        self._files[source.path] = (source.stamp, file)
        if file.flaws:
            self._report(_message(source.path, file.flaws))
        return file


def _message(path: str, flaws: tuple[Flaw, ...]) -> str:
    first, *others = flaws
    shown = first.text if len(first.text) <= _MAX_SHOWN_CHARS else f"{first.text[:_MAX_SHOWN_CHARS]}..."
    fate = "counts as git reads it" if first.is_used else "is passed over"
    more = ", ".join(str(flaw.line) for flaw in others[:_MAX_SHOWN_LINES])
    further = f", and {len(others) - _MAX_SHOWN_LINES} more" if len(others) > _MAX_SHOWN_LINES else ""
    rest = f". The same file has such lines at {more}{further}" if others else ""
    return f"{path}, line {first.line}: {shown} {fate}: {first.reason}{rest}"


def _read(path: str, style: PathStyle) -> IgnoreFile:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        return IgnoreFile.naming_everything(f"it cannot be read: {error.strerror}")
    if len(content) > _MAX_FILE_BYTES:
        return IgnoreFile.naming_everything(f"it is longer than {_MAX_FILE_BYTES // 1024} KiB")
    return IgnoreFile.parse(style.folded(content.decode("utf-8", "surrogateescape")))
