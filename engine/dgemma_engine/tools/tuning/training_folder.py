"""The folder of a training on a repository: private, held by one process, emptied at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dgemma_engine.errors import TrainingError
from dgemma_engine.private_files import make_private_folder, open_private, try_lock

_LOCK = "lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFolder:
    """A folder.

    Attributes:
        path: need not exist.
    """

    path: Path

    @contextmanager
    def exclusive(self) -> Generator[None]:
        """Makes the folder and holds it for this process; at the end removes it if nothing is left in it.

        Raises:
            TrainingError: another process holds it, or it cannot be made.
        """
        try:
            make_private_folder(self.path)
            descriptor = open_private(self.path / _LOCK, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise TrainingError(
                f"{self.path}: cannot be written ({error.strerror or error}); free some space"
            ) from error
        try:
            if not try_lock(descriptor):
                raise TrainingError("this repository is being tuned by another process; wait for it")
            yield
            self._remove_empty()
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Drops what a training left."""
        for path in self.path.iterdir():
            if path.name != _LOCK:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def _remove_empty(self) -> None:
        with suppress(OSError):
            if [path.name for path in self.path.iterdir()] == [_LOCK]:
                shutil.rmtree(self.path)
                # A repository without an adapter leaves nothing.
                self.path.parent.rmdir()
