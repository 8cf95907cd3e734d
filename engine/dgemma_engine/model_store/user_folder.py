"""Where fetched models are kept: one folder each below the user's data folder. Standard library only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dgemma_engine.errors import ModelStoreError
from dgemma_engine.model_store.entry import Entry
from dgemma_engine.model_store.hub_name import HubName

PULLED = "pulled.json"
"""In the folder of a model of the hub: what it is. Written last."""
_HUB = "hub"


def data_folder(environ: Mapping[str, str]) -> Path:
    """Returns the folder of all that is kept for this user: below `XDG_DATA_HOME`, else below `~/.local/share`.

    Raises:
        ModelStoreError: the user has no home folder.
    """
    data = environ.get("XDG_DATA_HOME", "")
    if data.startswith("/"):
        return Path(data) / "dgemma-lsp"
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        raise ModelStoreError("no home folder to keep models in; set XDG_DATA_HOME to a folder of your own")
    return Path(home) / ".local/share/dgemma-lsp"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStore:
    """The folder of all fetched models; need not exist."""

    folder: Path

    @classmethod
    def locate(cls, environ: Mapping[str, str]) -> Self:
        """Returns the user's store, in `data_folder`.

        Raises:
            ModelStoreError: the user has no home folder.
        """
        return cls(folder=data_folder(environ) / "models")

    def model_path(self, entry: Entry) -> Path | None:
        """Returns the file or folder of a fetched model; None where it is not there, or was never one to fetch."""
        name = HubName.parse(entry.repo)
        if name is not None and (path := self.hub_path(name)) is not None:
            return path
        if entry.file is None:
            return None
        path = self.folder / entry.name / entry.file.name
        return path if path.is_file() else None

    def final_folder(self, entry: Entry) -> Path:
        """Returns the folder that a whole model is in, and nothing else ever."""
        return self.folder / entry.name

    def staging_folder(self, entry: Entry) -> Path:
        """Returns the folder that a model is fetched into; an interrupted download is resumed from there."""
        return self.folder / f".{entry.name}.part"

    def hub_folder(self, name: HubName) -> Path:
        """Returns the folder that a whole model of the hub is in."""
        return self.folder / _HUB / name.folder

    def hub_staging(self, name: HubName) -> Path:
        """Returns the folder that a model of the hub is fetched into."""
        return self.folder / _HUB / f".{name.folder}.part"

    def hub_path(self, name: HubName) -> Path | None:
        """Returns the folder or GGUF file of a model of the hub; None where it is not there."""
        folder = self.hub_folder(name)
        if not (folder / PULLED).is_file():
            return None
        return folder / name.file if name.file else folder

    def hub_commit(self, name: HubName) -> str:
        """Returns the commit that a model of the hub was fetched at; empty where it is not there."""
        about = _about(self.hub_folder(name))
        return about.get("commit", "")

    def hub_models(self) -> Generator[tuple[HubName, str, int]]:
        """Yields the models of the hub that are there: name, licence, bytes."""
        for path in sorted((self.folder / _HUB).glob(f"*/{PULLED}")):
            about = _about(path.parent)
            if (name := HubName.parse(about.get("name", ""))) is not None:
                num_bytes = sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())
                yield name, about.get("licence", ""), num_bytes

    def remove(self, entry: Entry | HubName) -> bool:
        """Deletes a fetched model and an unfinished download of it; returns whether there was anything.

        Raises:
            ModelStoreError: it cannot be deleted.
        """
        found, folders = False, list[Path]()
        if isinstance(entry, Entry):
            folders += self.final_folder(entry), self.staging_folder(entry)
        if (name := HubName.parse(entry.repo) if isinstance(entry, Entry) else entry) is not None:
            folders += self.hub_folder(name), self.hub_staging(name)
        for folder in folders:
            try:
                shutil.rmtree(folder)
                found = True
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ModelStoreError(f"{folder}: cannot be removed ({error.strerror}); remove it yourself") from error
        return found


def _about(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / PULLED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
