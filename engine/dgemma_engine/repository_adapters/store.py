"""The adapters of a user's repositories, one folder for each root: found by walking up from a folder, replaced at once.

`adapters/KEY/about.json` describes the adapter and names the folder beside it, `adapters/KEY/FILES/`, that holds
`causal.safetensors` and, where one was fitted, `calibration.json`. KEY is the beginning of the SHA-256 of the root's
canonical path. A new adapter gets a new folder; renaming its `about.json` into place is what installs it, so that a
full disk, a kill or a power loss at any moment leaves the old adapter or the new one. Only the user can read any of it.
Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self
from uuid import uuid4

from dgemma_engine.durable_files import put_in_place, sync_file, sync_folder
from dgemma_engine.errors import AdapterStoreError
from dgemma_engine.model_store.user_folder import data_folder
from dgemma_engine.private_files import make_private_folder, open_private
from dgemma_engine.repository_adapters.about import About
from dgemma_engine.repository_adapters.safetensors_header import why_damaged
from dgemma_engine.repository_adapters.training_folder import TrainingFolder, UnfinishedTraining, size_of

ADAPTER, CALIBRATION = "causal.safetensors", "calibration.json"
"""Files of an adapter, in the formats of `families.llama.adapter` and `checkpoint.calibration`."""

MAX_BYTES = 24 * 2**20
"""Most bytes of an adapter and its calibration."""

_ABOUT, _TRAINING = "about.json", "training"
_KEY_DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryAdapter:
    """An installed adapter.

    Attributes:
        about: what it belongs to; `about.is_enabled` says whether it is to be used.
        folder: holds its files. Another one once the adapter is replaced, so it stands for this very adapter; it is
            gone some time after that.
    """

    about: About
    folder: Path

    @property
    def path(self) -> Path:
        """File of the factors."""
        return self.folder / ADAPTER

    @property
    def calibration_path(self) -> Path | None:
        """File of the calibration that was fitted with it; None where there is none, and the base's own is used."""
        path = self.folder / CALIBRATION
        return path if path.is_file() else None

    @property
    def num_bytes(self) -> int:
        """Size of its files; 0 where they are gone."""
        return size_of(self.folder)

    @property
    def fault(self) -> str:
        """Why its file of factors cannot be read, and what to do; empty where it is whole. Reads its header only."""
        if not (why := why_damaged(self.path)):
            return ""
        root = shlex.quote(self.about.root)
        return (
            f"the adapter of {self.about.root} is damaged: {ADAPTER} {why}; train it anew: dgemma-engine tune {root}, "
            f"or remove it: dgemma-engine adapters rm {root}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterStore:
    """The folder of all adapters; need not exist."""

    folder: Path

    @classmethod
    def locate(cls, environ: Mapping[str, str]) -> Self:
        """Returns the user's store, in `model_store.user_folder.data_folder`.

        Raises:
            ModelStoreError: the user has no home folder.
        """
        return cls(folder=data_folder(environ) / "adapters")

    def find(self, folder: Path) -> RepositoryAdapter | None:
        """Returns the adapter of the nearest root at or above a folder, enabled or not; None without one.

        One that is off hides those of the folders above: off means the model as it is. A call reads `about.json` and
        looks for one in each folder above.

        Args:
            folder: any path, of a folder or file; need not exist.

        Raises:
            AdapterStoreError: the adapter is damaged, or of another version.
        """
        nearest = self.nearest(folder)
        if nearest is None:
            return None
        _, found = nearest
        if isinstance(found, AdapterStoreError):
            raise found
        return found

    def nearest(self, folder: Path) -> tuple[Path, RepositoryAdapter | AdapterStoreError] | None:
        """Returns the root of `find`, and its adapter or why that cannot be read; None without one."""
        folder = canonical_root(folder)
        for root in (folder, *folder.parents):
            try:
                found = self.get(root)
            except AdapterStoreError as error:
                return root, error
            if found is not None:
                return root, found
        return None

    def get(self, root: Path) -> RepositoryAdapter | None:
        """Returns the adapter of exactly this root.

        Raises:
            AdapterStoreError: the adapter is damaged, or of another version.
        """
        root = canonical_root(root)
        found = self._read(self._home(root))
        # Two paths whose keys are the same: the adapter is of one of them.
        return found if found is not None and found.about.root == str(root) else None

    def all(self) -> Iterator[RepositoryAdapter | UnfinishedTraining | AdapterStoreError]:
        """Yields adapters and unfinished trainings in the order of their keys; why, in place of what cannot be read."""
        for home in sorted(self.folder.glob("*")):
            for read in (lambda home=home: self._read(home), TrainingFolder(path=home / _TRAINING).unfinished):
                try:
                    found = read()
                except AdapterStoreError as error:
                    yield error
                else:
                    if found is not None:
                        yield found

    def training_folder(self, root: Path) -> TrainingFolder:
        """Returns the folder of a training on a root; need not exist."""
        return TrainingFolder(path=self._home(canonical_root(root)) / _TRAINING)

    def install(self, about: About, *, adapter: bytes, calibration: bytes | None) -> RepositoryAdapter:
        """Installs an adapter in place of the one that its root has; returns it.

        Args:
            about: of the adapter.
            adapter: content of `causal.safetensors`.
            calibration: content of `calibration.json`; None installs none.

        Raises:
            AdapterStoreError: it is too large, or cannot be written; the old adapter is untouched.
        """
        size = len(adapter) + len(calibration or b"")
        if size > MAX_BYTES:
            raise AdapterStoreError(
                f"the adapter has {size / 2**20:.1f} MiB, {MAX_BYTES // 2**20} are the most; train one of lower rank"
            )
        home = self._home(Path(about.root))
        made = home / uuid4().hex
        try:
            make_private_folder(made)
            _write(made / ADAPTER, adapter)
            if calibration is not None:
                _write(made / CALIBRATION, calibration)
            sync_folder(made)
            _replace(home / _ABOUT, about.to_json(made.name))
        except OSError as error:
            shutil.rmtree(made, ignore_errors=True)
            raise AdapterStoreError(
                f"{home}: cannot be written ({error.strerror or error}), the old adapter is kept; free some space"
            ) from error
        for path in home.iterdir():
            if path.is_dir() and path.name not in (made.name, _TRAINING):
                shutil.rmtree(path, ignore_errors=True)
        return RepositoryAdapter(about=about, folder=made)

    def enable(self, root: Path, *, enabled: bool) -> RepositoryAdapter:
        """Turns the adapter of exactly this root on or off; returns it.

        Raises:
            AdapterStoreError: there is none, it is damaged, or cannot be written.
        """
        found = self.get(root)
        if found is None:
            raise _none(root)
        about = replace(found.about, is_enabled=enabled)
        home = found.folder.parent
        try:
            _replace(home / _ABOUT, about.to_json(found.folder.name))
        except OSError as error:
            raise AdapterStoreError(
                f"{home}: cannot be written ({error.strerror or error}); free some space"
            ) from error
        return replace(found, about=about)

    def remove(self, root: Path) -> None:
        """Deletes the adapter of exactly this root, whole or damaged, and the state of a training on it.

        Raises:
            AdapterStoreError: there is none, or it cannot be deleted.
            TrainingError: a process trains one; nothing was deleted.
        """
        training = self.training_folder(root)
        home = training.path.parent
        if not home.is_dir():
            raise _none(root)
        # Held, so that no training that goes on meanwhile installs what is removed here. A full disk takes no new lock
        # file, and where there is none nobody trains.
        with training.exclusive() if training.path.is_dir() else nullcontext():
            try:
                # First, so that nothing finds what is about to go.
                (home / _ABOUT).unlink(missing_ok=True)
                training.clear()
                for path in home.iterdir():
                    if path != training.path:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
            except OSError as error:
                raise AdapterStoreError(
                    f"{home}: cannot be removed ({error.strerror or error}); remove it yourself"
                ) from error
        with suppress(OSError):
            home.rmdir()

    def remove_unfinished(self, root: Path) -> None:
        """Deletes the state of a training on exactly this root, and leaves its adapter.

        Raises:
            AdapterStoreError: there is none.
            TrainingError: a process trains; nothing was deleted.
        """
        training = self.training_folder(root)
        if not training.is_unfinished:
            raise AdapterStoreError(
                f"{root}: has no unfinished training; `dgemma-engine adapters` lists those there are"
            )
        with training.exclusive():
            training.clear()

    def _home(self, root: Path) -> Path:
        digest = hashlib.sha256(os.fsencode(root)).hexdigest()
        return self.folder / digest[:_KEY_DIGITS]

    def _read(self, home: Path) -> RepositoryAdapter | None:
        path = home / _ABOUT
        try:
            about, files = About.from_json(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise AdapterStoreError(f"{path}: cannot be used ({error}); remove {home}, or tune again") from error
        return RepositoryAdapter(about=about, folder=home / files)


def canonical_root(folder: Path) -> Path:
    """Returns the absolute path without links and `..` that stands for a folder; need not exist."""
    return Path(os.path.realpath(folder))


def _none(root: Path) -> AdapterStoreError:
    return AdapterStoreError(f"{root}: has no adapter; `dgemma-engine adapters` lists those there are")


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.unlink(missing_ok=True)
    try:
        _write(unfinished, text.encode())
        put_in_place(unfinished, path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def _write(path: Path, content: bytes) -> None:
    """Writes a file that is on the disk when this returns."""
    with os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.write(content)
    sync_file(path)
