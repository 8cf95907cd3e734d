"""Where fetched models are kept: one folder each below the user's data folder. Standard library only."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dgemma_engine.errors import ModelStoreError
from dgemma_engine.model_store.catalogue import Entry


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
        """Returns the file of a fetched model; None where it is not there, or was never one to fetch."""
        if entry.wheel is None:
            return None
        path = self.folder / entry.name / entry.wheel.model_name
        return path if path.is_file() else None

    def final_folder(self, entry: Entry) -> Path:
        """Returns the folder that a whole model is in, and nothing else ever."""
        return self.folder / entry.name

    def staging_folder(self, entry: Entry) -> Path:
        """Returns the folder that a model is fetched into; what an interrupted download left there is gone on with."""
        return self.folder / f".{entry.name}.part"

    def remove(self, entry: Entry) -> bool:
        """Deletes a fetched model and what was begun of it; returns whether there was anything.

        Raises:
            ModelStoreError: it cannot be deleted.
        """
        found = False
        for folder in (self.final_folder(entry), self.staging_folder(entry)):
            try:
                shutil.rmtree(folder)
                found = True
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ModelStoreError(f"{folder}: cannot be removed ({error.strerror}); remove it yourself") from error
        return found
