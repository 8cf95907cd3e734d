"""A file that the user names as output: checked before the work, written whole or not at all, private to its owner.

Never replaces what the command reads, nor what is no regular file (a link, a pipe, a device).
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self


class OutputRefused(ValueError):
    """A path that must not be replaced; `str()` is one line that says why and what to name instead."""


class NewFile:
    """A file that is being written: leaving the block puts it in place, an exception or SIGTERM leaves nothing.

    Within the block, on the main thread, SIGTERM ends the program by `SystemExit`.

    Args:
        path: the file to write; a regular file of that name is replaced.
        source: a file that must not be replaced, under whatever name; None if there is none.
    """

    def __init__(self, path: Path, *, source: Path | None = None) -> None:
        self._path = path
        self._source = source
        self._part: Path | None = None
        self._on_terminate: Any = None

    def __enter__(self) -> Self:
        """Makes sure that the file can be written.

        Raises:
            OutputRefused: the path names the source, or something that is not a regular file.
            OSError: it cannot be written.
        """
        self._verify()
        # Its own short name: the path's may be as long as the file system allows.
        descriptor, part = tempfile.mkstemp(prefix=".dgemma-", suffix=".part", dir=self._path.parent)
        os.close(descriptor)
        self._part = Path(part)
        if threading.current_thread() is threading.main_thread():
            self._on_terminate = signal.signal(signal.SIGTERM, _end)
        return self

    def write(self, text: str) -> None:
        """Sets the content of the file; characters that UTF-8 cannot express (from a file's name) are escaped.

        Raises:
            OSError: there is no room for it.
        """
        assert self._part is not None, "written outside the block"
        self._part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._part is not None, "left without having been entered"
        try:
            if error is None:
                # Again: the work before may have taken minutes.
                self._verify()
                self._part.replace(self._path)
        finally:
            with suppress(FileNotFoundError):
                self._part.unlink()
            if self._on_terminate is not None:
                signal.signal(signal.SIGTERM, self._on_terminate)

    def _verify(self) -> None:
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return
        if stat.S_ISLNK(found.st_mode):
            raise OutputRefused(f"{self._path}: is a link, which would be replaced; name a new file")
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self._path))
        if not stat.S_ISREG(found.st_mode):
            raise OutputRefused(f"{self._path}: is not a regular file and would be replaced; name a new file")
        if self._source is not None and os.path.samestat(found, self._source.stat()):
            raise OutputRefused(f"{self._path}: is the file that is read, and would be lost; name a new file")
        if not found.st_mode & 0o222:
            raise OutputRefused(f"{self._path}: is write-protected; name a new file")


def _end(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)
