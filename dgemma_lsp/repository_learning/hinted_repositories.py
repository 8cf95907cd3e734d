"""The repositories for which the hint that they can be learnt was shown: once for each, in all windows and editors.

One empty file each, named by the hash of the root: creating it decides between two windows that ask at once, and the
names do not reveal which repositories there are.
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
        """Records that the hint is shown; returns whether to show it: False if it was shown or cannot be recorded."""
        try:
            make_private_folder(self.folder)
            os.close(open_private(self._file(root), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        except OSError:
            return False
        return True

    def _file(self, root: str) -> Path:
        return self.folder / hashlib.sha256(root.encode("utf-8", "surrogatepass")).hexdigest()[:32]
