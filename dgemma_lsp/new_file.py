"""A file that is written whole or not at all: text goes beside it first, and only its owner may read it."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self


class NewFile:
    """A file in the making; leaving the block puts it in place, leaving it by an exception leaves nothing.

    Args:
        path: what it will be called; a file of that name is replaced.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")

    def __enter__(self) -> Self:
        """Makes sure that the file can be written.

        Raises:
            OSError: it cannot.
        """
        if self._path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self._path))
        os.close(os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        return self

    def write(self, text: str) -> None:
        """Sets what the file will hold.

        Raises:
            OSError: there is no room for it.
        """
        self._part.write_text(text, encoding="utf-8", newline="\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._part.replace(self._path)
        with suppress(FileNotFoundError):
            self._part.unlink()
