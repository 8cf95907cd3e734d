"""The repositories of which the user was told that they can be learnt: never twice, whatever window or editor asks.

One empty file each, named for the hash of the root: creating it decides between two windows that ask at once, and
nobody reads from it which repositories there are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from dgemma_engine.private_files import make_private_folder, open_private

from dgemma_lsp.settings.home import state_folder


class HintedRepositories:
    """The files; their folder need not exist.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def locate(cls, environ: Mapping[str, str], *, home: Path) -> Self:
        """Returns this user's folder; see `state_folder`.

        Args:
            environ: the process's environment.
            home: the user's home folder.
        """
        return cls(state_folder(environ, home=home) / "hinted-repositories")

    def __contains__(self, root: str) -> bool:
        return self._file(root).exists()

    def claim(self, root: str) -> bool:
        """Notes that the user is told now; returns whether nobody told before. What cannot be noted is not told."""
        try:
            make_private_folder(self.folder)
            os.close(open_private(self._file(root), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        except OSError:
            return False
        return True

    def _file(self, root: str) -> Path:
        return self.folder / hashlib.sha256(root.encode("utf-8", "surrogatepass")).hexdigest()[:32]
