"""A model from the Hugging Face hub into the user's store: the files it needs, resumed, verified, then there at once.

`huggingface_hub` makes the requests, with token, endpoint and proxy of its own variables. A file is written under one
name until it is whole, so that the next call goes on with it, however this one ends. Nothing fetched is ever run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import HfApi, constants, get_hf_file_metadata, get_session, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from dgemma_engine.durable_files import put_in_place, sync_file
from dgemma_engine.errors import ModelStoreError
from dgemma_engine.model_store.entry import MB
from dgemma_engine.model_store.fetch import clear, exclusive, kept_whole
from dgemma_engine.model_store.hub_files import INDEX, HubFile, needed_files
from dgemma_engine.model_store.hub_name import HubName
from dgemma_engine.model_store.user_folder import PULLED, ModelStore

_SPARE_BYTES = 64 * MB
_TIMEOUT_S = 30.0
_PART = ".part"
_CHUNK_BYTES = 2**20
_OFFLINE = "the hub cannot be reached; check the network, HF_ENDPOINT and HTTPS_PROXY, then run the command again"


class HubModel:
    """A model as it is at the hub now.

    Args:
        name: of the model.

    Attributes:
        name: see above.
        commit: that its revision stands for.
        files: to fetch.
        licence: as its card names it; may be empty.

    Raises:
        ModelStoreError: it is not there, may not be read, or holds no model of a kind that is read.
    """

    def __init__(self, name: HubName) -> None:
        # Its warnings would stand between our lines.
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        self.name = name
        with _sentences(name):
            info = HfApi().model_info(
                name.repo, revision=name.revision or None, files_metadata=True, timeout=_TIMEOUT_S
            )
            self.commit = info.sha or ""
            found = [
                HubFile(
                    path=one.rfilename,
                    num_bytes=one.size or 0,
                    sha256=one.lfs.sha256 if one.lfs else "",
                    blob_sha1="" if one.lfs else one.blob_id or "",
                )
                for one in info.siblings or ()
            ]
            self.files = needed_files(name, found, partial(_indexed, name, self.commit))
        card = info.card_data
        self.licence = str(card.get("license") or "") if card else ""

    @property
    def num_bytes(self) -> int:
        """What is fetched."""
        return sum(file.num_bytes for file in self.files)


def fetch_hub_model(
    model: HubModel,
    store: ModelStore,
    report: Callable[[int], None],
    *,
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
) -> Path:
    """Returns the folder or GGUF file of a model, which is fetched unless this very commit is there.

    Args:
        model: as it is at the hub.
        store: where it is kept.
        report: called with the number of bytes that there are.
        free_bytes: of the disk that a folder lies on.

    Raises:
        ModelStoreError: it cannot be fetched or kept; the message has the reason and the remedy.
    """
    name = model.name
    if store.hub_commit(name) == model.commit and (path := store.hub_path(name)) is not None:
        return path
    staging, final = store.hub_staging(name), store.hub_folder(name)
    with kept_whole(staging, store, str(name)), exclusive(staging, str(name), keeps=_holds_something):
        folder = staging / model.commit
        # Files of another commit are of no use.
        for other in staging.glob("*"):
            if other != folder:
                clear(other)
        folder.mkdir(exist_ok=True)
        _require_space(model, folder, free_bytes)
        num_bytes = 0
        for file in model.files:
            _fetch(model, file, folder, lambda there, before=num_bytes: report(before + there))
            num_bytes += file.num_bytes
        about = {"name": str(name), "commit": model.commit, "licence": model.licence}
        (folder / PULLED).write_text(json.dumps(about) + "\n", encoding="utf-8")
        sync_file(folder / PULLED)
        clear(final)
        put_in_place(folder, final)
    path = store.hub_path(name)
    assert path is not None, "it was put there above"
    return path


def _holds_something(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())


def _require_space(model: HubModel, folder: Path, free_bytes: Callable[[Path], int]) -> None:
    there = sum(max(_size(folder / file.path), _size(_part_of(folder / file.path))) for file in model.files)
    needed, free = model.num_bytes - there + _SPARE_BYTES, free_bytes(folder)
    if free < needed:
        raise ModelStoreError(
            f"{folder.parent.parent}: {model.name} needs {needed / MB:,.0f} MB more, {free / MB:,.0f} MB are free; "
            "free some, or set XDG_DATA_HOME to a folder on another disk"
        )


def _fetch(model: HubModel, file: HubFile, folder: Path, report: Callable[[int], None]) -> None:
    """Fetches one file, or the rest of it."""
    path = folder / file.path
    if path.is_file():
        report(file.num_bytes)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part_of(path)
    if _size(part) > file.num_bytes:
        clear(part)
    if _size(part) < file.num_bytes or not file.num_bytes:
        with _sentences(model.name), part.open("ab") as target:
            _download(model, file, _Counted(target, report))
    if not _is_right(part, file):
        clear(part)
        raise ModelStoreError(
            f"{model.name}: {file.path} is not the file that the hub describes, so nothing was kept of it; try again, "
            "or check the mirror that HF_ENDPOINT names"
        )
    report(file.num_bytes)
    put_in_place(part, path)


def _download(model: HubModel, file: HubFile, target: _Counted) -> None:
    url = hf_hub_url(model.name.repo, file.path, revision=model.commit)
    headers = build_hf_headers()
    # The answer to HEAD names the host of a large file; that host needs no token, and must not get it.
    place = get_hf_file_metadata(url, headers=headers, timeout=_TIMEOUT_S).location
    if urlsplit(place).netloc != urlsplit(url).netloc:
        headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    # The library asks for a range, and writes to what it is given.
    stream = cast(BinaryIO, target)
    http_get(place, stream, resume_size=target.tell(), headers=headers, expected_size=file.num_bytes)


class _Counted:
    """A file that reports how long it is."""

    def __init__(self, file: BinaryIO, report: Callable[[int], None]) -> None:
        self._file, self._report = file, report

    def write(self, data: bytes) -> int:
        written = self._file.write(data)
        self._report(self._file.tell())
        return written

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, place: int) -> int:
        return self._file.seek(place)

    def truncate(self) -> int:
        return self._file.truncate()


def _indexed(name: HubName, commit: str) -> frozenset[str]:
    """Returns the files that a repository's index of weights names."""
    url = hf_hub_url(name.repo, INDEX, revision=commit)
    answer = get_session().get(url, headers=build_hf_headers(), follow_redirects=True, timeout=_TIMEOUT_S)
    answer.raise_for_status()
    try:
        return frozenset(answer.json()["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelStoreError(f"{name.repo}: its {INDEX} names no files; choose another repository") from None


def _is_right(path: Path, file: HubFile) -> bool:
    if _size(path) != file.num_bytes:
        return False
    with path.open("rb") as content:
        if file.sha256:
            return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
        if not file.blob_sha1:
            return True
        # As git names a small file: by its size and content.
        digest = hashlib.sha1(b"blob %d\0" % file.num_bytes, usedforsecurity=False)
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest() == file.blob_sha1


def _part_of(path: Path) -> Path:
    return path.with_name(path.name + _PART)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


@contextmanager
def _sentences(name: HubName) -> Generator[None]:
    """Turns what the library raises into one sentence with the remedy."""
    try:
        yield
    except GatedRepoError:
        raise ModelStoreError(
            f"{name.repo} is gated: accept its terms at {constants.ENDPOINT}/{name.repo}, then sign in with: "
            "hf auth login"
        ) from None
    except RepositoryNotFoundError:
        raise ModelStoreError(
            f"{name.repo}: there is no such repository, or it is private: check the name, or sign in: hf auth login"
        ) from None
    except RevisionNotFoundError:
        raise ModelStoreError(f"{name.repo} has no revision {name.revision}; choose another after the @") from None
    except (HfHubHTTPError, httpx2.HTTPStatusError) as error:
        raise ModelStoreError(f"{name}: {_of_status(error.response.status_code)}") from None
    except OfflineModeIsEnabled:
        raise ModelStoreError(f"{name}: HF_HUB_OFFLINE is set, so nothing is fetched; unset it") from None
    except (LocalEntryNotFoundError, httpx2.TransportError, ConnectionError):
        raise ModelStoreError(f"{name}: {_OFFLINE}") from None
    except OSError as error:
        if error.errno is not None and error.filename:
            raise
        raise ModelStoreError(f"{name}: {_OFFLINE}") from None
    except (RuntimeError, ValueError) as error:
        if isinstance(error, ModelStoreError):
            raise
        first = str(error).strip().partition("\n")[0]
        raise ModelStoreError(f"{name}: the download broke off ({first}); run the command again to go on") from None


def _of_status(status: int) -> str:
    if status in (401, 403):
        return "the hub refuses it; sign in with an account that may read it: hf auth login"
    if status == 404:
        return "the hub does not know it; check the name"
    if status == 429:
        return "the hub has had too many requests from here; wait some minutes, or sign in: hf auth login"
    return f"the hub answers with HTTP status {status}; try again later"
