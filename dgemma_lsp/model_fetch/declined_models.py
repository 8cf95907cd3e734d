"""The models that the user does not want to be offered again, in one file that all windows and editors share."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from dgemma_engine.private_files import make_private_folder, open_private

from dgemma_lsp.settings.home import state_folder

_MAX_BYTES = 64 * 1024


class DeclinedModels:
    """The file; need not exist.

    Args:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def locate(cls, environ: Mapping[str, str], *, home: Path) -> Self:
        """Returns this user's file; see `state_folder`.

        Args:
            environ: the process's environment.
            home: the user's home folder.
        """
        return cls(state_folder(environ, home=home) / "declined-models.json")

    def __contains__(self, name: str) -> bool:
        return name in self._names()

    def add(self, name: str) -> None:
        """Adds a model's short name.

        Raises:
            OSError: the file cannot be written.
        """
        names = sorted({*self._names(), name})
        make_private_folder(self.path.parent)
        # Of two windows that write at once the later one's list stays: at worst the user is asked once more.
        new = self.path.with_suffix(f".{os.getpid()}.new")
        new.unlink(missing_ok=True)
        with os.fdopen(open_private(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w", encoding="utf-8") as file:
            file.write(json.dumps(names))
        new.replace(self.path)

    def _names(self) -> set[str]:
        """Returns the names; a file that holds something else holds none."""
        try:
            with os.fdopen(open_private(self.path, os.O_RDONLY), "rb") as file:
                names: Any = json.loads(file.read(_MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            return set()
        return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()
