"""A model from the Hugging Face hub into the user's store: the files it needs, resumed, verified, then there at once.

`huggingface_hub` does the downloading, with the token, endpoint, proxy and cache of its own variables. Nothing that is
fetched is ever run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from dgemma_engine.durable_files import put_in_place, sync_file
from dgemma_engine.errors import ModelStoreError
from dgemma_engine.model_store.catalogue import MB
from dgemma_engine.model_store.fetch import clear, exclusive, kept_whole
from dgemma_engine.model_store.hub_files import HubFile, needed_files
from dgemma_engine.model_store.hub_name import HubName
from dgemma_engine.model_store.user_folder import PULLED, ModelStore

_SPARE_BYTES = 64 * MB
_TIMEOUT_S = 30.0
_POLL_S = 0.5
_CHUNK_BYTES = 2**20


class HubModel:
    """A model as it is at the hub now.

    Args:
        name: of the model.

    Attributes:
        commit: that its revision stands for.
        files: to fetch.

    Raises:
        ModelStoreError: it is not there, may not be read, or holds no model of a kind that is read.
    """

    def __init__(self, name: HubName) -> None:
        self.name = name
        with _sentences(name):
            info = HfApi().model_info(
                name.repo, revision=name.revision or None, files_metadata=True, timeout=_TIMEOUT_S
            )
        self.commit = info.sha or ""
        found = [
            HubFile(path=one.rfilename, num_bytes=one.size or 0, sha256=one.lfs.sha256 if one.lfs else "")
            for one in info.siblings or ()
        ]
        self.files = needed_files(name, found)
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
    with kept_whole(staging, store, str(name)), exclusive(staging, str(name), keeps=lambda path: path.is_dir()):
        folder = staging / model.commit
        # Files of another commit are of no use.
        for other in staging.glob("*"):
            if other != folder:
                clear(other)
        folder.mkdir(exist_ok=True)
        there = sum(_size(folder / file.path) for file in model.files)
        needed, free = model.num_bytes - there + _SPARE_BYTES, free_bytes(staging)
        if free < needed:
            raise ModelStoreError(
                f"{staging.parent}: {name} needs {needed / MB:,.0f} MB more, {free / MB:,.0f} MB are free; free some, "
                "or set XDG_DATA_HOME to a folder on another disk"
            )
        with _watched(folder, report):
            for file in model.files:
                _fetch(model, file, folder)
                sync_file(folder / file.path)
        clear(folder / ".cache")
        about = {"name": str(name), "commit": model.commit, "licence": model.licence}
        (folder / PULLED).write_text(json.dumps(about) + "\n", encoding="utf-8")
        clear(final)
        final.parent.mkdir(parents=True, exist_ok=True)
        put_in_place(folder, final)
    path = store.hub_path(name)
    assert path is not None, "it was put there above"
    return path


def _fetch(model: HubModel, file: HubFile, folder: Path) -> None:
    path = folder / file.path
    if _size(path) == file.num_bytes and _is_right(path, file):
        return
    with _sentences(model.name):
        hf_hub_download(model.name.repo, file.path, revision=model.commit, local_dir=folder, etag_timeout=_TIMEOUT_S)
    if _size(path) != file.num_bytes or not _is_right(path, file):
        clear(path)
        raise ModelStoreError(
            f"{model.name}: {file.path} is not the file that the hub describes, so nothing was kept of it; try again, "
            "or check the mirror that HF_ENDPOINT names"
        )


def _is_right(path: Path, file: HubFile) -> bool:
    if not file.sha256:
        return True
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256


@contextmanager
def _watched(folder: Path, report: Callable[[int], None]) -> Generator[None]:
    """Reports what there is of all files while they are fetched: the library reports each file by itself."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_POLL_S):
            report(_sum(folder.rglob("*")))

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
        report(_sum(folder.rglob("*")))
    finally:
        ended.set()
        watching.join()


def _sum(paths: Generator[Path]) -> int:
    return sum(_size(path) for path in paths)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


@contextmanager
def _sentences(name: HubName) -> Generator[None]:
    """Turns what the library raises into one sentence with the remedy."""
    try:
        yield
    except GatedRepoError:
        raise ModelStoreError(
            f"{name.repo} wants its terms accepted: do that at {constants.ENDPOINT}/{name.repo}, then sign in with: "
            "hf auth login"
        ) from None
    except RepositoryNotFoundError:
        raise ModelStoreError(
            f"{name.repo}: there is no such repository, or it is private: check the name, or sign in: hf auth login"
        ) from None
    except RevisionNotFoundError:
        raise ModelStoreError(f"{name.repo} has no revision {name.revision}; choose another after the @") from None
    except HfHubHTTPError as error:
        raise ModelStoreError(f"{name}: {_of_status(error)}") from None
    except (LocalEntryNotFoundError, httpx2.TransportError):
        raise ModelStoreError(f"{name}: {_OFFLINE}") from None
    except OSError as error:
        if error.errno is not None and error.filename:
            raise
        raise ModelStoreError(f"{name}: {_OFFLINE}") from None
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ModelStoreError(f"{name}: the download broke off ({first}); run the command again to go on") from None


_OFFLINE = "the hub cannot be reached; check the network, HF_ENDPOINT and HTTPS_PROXY, then run the command again"


def _of_status(error: HfHubHTTPError) -> str:
    status = getattr(error.response, "status_code", 0)
    if status in (401, 403):
        return "the hub refuses it; sign in with an account that may read it: hf auth login"
    if status == 429:
        return "the hub answers too many requests; wait some minutes, or sign in: hf auth login"
    return f"the hub answers with HTTP status {status}; try again later"
