"""The one file that the server writes: counts and times of this user's completions, shared by all windows.

Every window adds its counts since its last addition; a lock serialises the additions, and the file is replaced as a
whole, so that it is never half written. The only module by which a server writes to disk unasked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dgemma_engine.private_files import make_private_folder, mend_folder, open_private, try_lock

from dgemma_lsp.metrics.stats import Stats
from dgemma_lsp.settings.home import state_folder

_MAX_BYTES = 256 * 1024


class StatsBusy(OSError):
    """Another window is writing the file; try again later."""


class StatsFile:
    """The file with the counts.

    Args:
        folder: holds the file, its lock, and nothing else; made when it is first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "stats.json"
        self._lock = folder / "stats.lock"

    @classmethod
    def locate(cls, environ: Mapping[str, str], *, home: Path) -> StatsFile:
        """Returns this user's file; see `state_folder`.

        Args:
            environ: the process's environment.
            home: the user's home folder.
        """
        return cls(state_folder(environ, home=home))

    def read(self) -> Stats:
        """Returns what was counted so far; nothing where there is no file.

        Raises:
            OSError: it cannot be read.
            ValueError: it holds something else; the message says what to do.
        """
        mend_folder(self.path.parent)
        try:
            with os.fdopen(open_private(self.path, os.O_RDONLY), "rb") as file:
                content = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return Stats()
        try:
            if len(content) > _MAX_BYTES:
                raise ValueError(f"longer than {_MAX_BYTES // 1024} KiB")
            return Stats.from_json(json.loads(content))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.path}: {error}; remove it with: dgemma-lsp stats --delete") from error

    def add(self, counted: Stats) -> None:
        """Adds the counts of a window.

        Raises:
            StatsBusy: another window holds the lock.
            OSError: the file cannot be read or written.
            ValueError: the file holds something else; it is left as it is.
        """
        make_private_folder(self.path.parent)
        mend_folder(self.path.parent)
        with self._locked():
            total = self.read()
            total.merge(counted)
            new = self.path.with_suffix(".new")
            # A leftover of a window that was killed may be a link, or belong to another user.
            new.unlink(missing_ok=True)
            with os.fdopen(open_private(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w", encoding="utf-8") as file:
                file.write(json.dumps(total.to_json()))
            new.replace(self.path)

    def delete(self) -> bool:
        """Removes the file; returns whether there was one.

        Raises:
            StatsBusy: a window is writing the file.
            OSError: it cannot be removed.
        """
        mend_folder(self.path.parent)
        if not self.path.exists():
            return False
        with self._locked():
            self.path.unlink(missing_ok=True)
        return True

    @contextmanager
    def _locked(self) -> Generator[None]:
        descriptor = open_private(self._lock, os.O_RDWR | os.O_CREAT)
        try:
            # Never waits: a window that was stopped in the middle must not stop the others.
            if not try_lock(descriptor):
                raise StatsBusy(f"{self._lock}: another window is writing the file; try again")
            yield
        finally:
            os.close(descriptor)
