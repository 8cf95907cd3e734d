"""The folder of a training on a repository: private, held by one process, listed while unfinished, emptied at the end.

`training.json` says which training it is, `lock` is held as long as a process trains; all else is the training's own.
Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from dgemma_engine.durable_files import write_whole
from dgemma_engine.errors import AdapterStoreError, TrainingError
from dgemma_engine.private_files import make_private_folder, open_private, try_lock

_LOCK, _FACTS = "lock", "training.json"
# A holder that removes the folder meanwhile is met once, or twice in a row.
_ATTEMPTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFacts:
    """The content of `training.json`.

    Attributes:
        root: canonical path of the repository's folder.
        base_name: file name of the base.
        started: when the last call began, ISO 8601 with a time zone.
        minutes: of work in all.
        seed: of holes and samples.
    """

    root: str
    base_name: str
    started: str
    minutes: float
    seed: int

    def __post_init__(self) -> None:
        kinds = {"root": str, "base_name": str, "started": str, "minutes": int | float, "seed": int}
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name}={getattr(self, name)!r} has another type")

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `TrainingFolder.begin` wrote.

        Raises:
            ValueError: it is damaged.
        """
        try:
            return cls(**json.loads(text))
        except TypeError as error:
            raise ValueError(f"other keys: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedTraining:
    """The state of an interrupted training.

    Attributes:
        facts: which training it is.
        num_bytes: that it takes on the disk.
    """

    facts: TrainingFacts
    num_bytes: int


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
        descriptor = self._locked()
        try:
            yield
        finally:
            # While it is still held: whoever waits for the file finds out that it is gone.
            self._remove_empty()
            os.close(descriptor)

    def require_free(self) -> None:
        """Makes sure that no process trains here now. Makes no folder.

        Raises:
            TrainingError: one does.
        """
        if self.path.is_dir():
            with self.exclusive():
                pass

    def begin(self, facts: TrainingFacts) -> None:
        """Writes which training it is beside its place, then renames it.

        Raises:
            TrainingError: it cannot be written.
        """
        try:
            write_whole(self.path / _FACTS, json.dumps(asdict(facts)).encode())
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def facts(self) -> TrainingFacts | None:
        """Returns which training it is; None where there is none, or none that can be read."""
        try:
            return TrainingFacts.from_json((self.path / _FACTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    @property
    def is_unfinished(self) -> bool:
        """Whether a training left anything to go on with, or to remove."""
        return any(True for _ in self._own())

    def unfinished(self) -> UnfinishedTraining | None:
        """Returns the state of an interrupted training; None where there is none.

        Raises:
            AdapterStoreError: nothing says which training it is.
        """
        if not self.is_unfinished:
            return None
        if (facts := self.facts()) is None:
            raise AdapterStoreError(f"{self.path}: holds an unfinished training of an unknown folder; remove it")
        return UnfinishedTraining(facts=facts, num_bytes=self.num_bytes)

    @property
    def num_bytes(self) -> int:
        """Size of the state of a training."""
        return sum(size_of(path) for path in self._own())

    @property
    def free_bytes(self) -> int:
        """Space on the disk of the folder, which is there, that this user may use."""
        return shutil.disk_usage(self.path).free

    def clear(self) -> None:
        """Deletes the state of a training."""
        for path in [*self._own(), self.path / _FACTS]:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def _own(self) -> Iterator[Path]:
        with suppress(OSError):
            yield from (path for path in self.path.iterdir() if path.name not in (_LOCK, _FACTS))

    def _locked(self) -> int:
        """Returns the descriptor of the lock file, held by this process."""
        for _ in range(_ATTEMPTS):
            try:
                make_private_folder(self.path)
                descriptor = open_private(self.path / _LOCK, os.O_RDWR | os.O_CREAT)
            except FileNotFoundError:
                # Its holder removed the folder in between.
                continue
            except OSError as error:
                raise _unwritable(self.path, error) from error
            try:
                is_free = try_lock(descriptor)
            except OSError as error:
                os.close(descriptor)
                raise TrainingError(
                    f"{self.path}: cannot be locked ({error.strerror or error}); put XDG_DATA_HOME on another disk"
                ) from error
            if is_free and self._is_lock(descriptor):
                return descriptor
            os.close(descriptor)
            if not is_free:
                break
        raise TrainingError("another process is tuning this already; wait for it, or stop it first")

    def _is_lock(self, descriptor: int) -> bool:
        """Whether an open file is still the one of that name: its last holder may have removed it."""
        try:
            return os.path.samestat(os.fstat(descriptor), (self.path / _LOCK).stat())
        except OSError:
            return False

    def _remove_empty(self) -> None:
        with suppress(OSError):
            if not self.is_unfinished:
                for name in (_FACTS, _LOCK):
                    (self.path / name).unlink(missing_ok=True)
                self.path.rmdir()
                # A repository without an adapter leaves nothing.
                self.path.parent.rmdir()


def size_of(path: Path) -> int:
    """Returns the bytes of a file, or of all files in a folder; 0 where it is gone."""
    try:
        return sum(map(size_of, path.iterdir())) if path.is_dir() else path.stat().st_size
    except OSError:
        return 0


def _unwritable(path: Path, error: OSError) -> TrainingError:
    return TrainingError(f"{path}: cannot be written ({error.strerror or error}); free some space")
