"""Whether a file that the user names as output may be written: never the input, never two outputs in one file.

Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dgemma_engine.errors import EngineError


def require_apart(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Makes sure that writing the outputs overwrites no input and no other output, under whatever name.

    Args:
        outputs: files to be written; need not exist.
        inputs: files that are read.

    Raises:
        EngineError: two of them are the same file.
    """
    for index, path in enumerate(outputs):
        if any(_is_same(path, other) for other in inputs):
            raise EngineError(f"{path}: is read, and would be overwritten; choose another file for the output")
        if any(_is_same(path, other) for other in outputs[:index]):
            raise EngineError(f"{path}: is named for two outputs, and one would be overwritten; choose another file")


def _is_same(first: Path, second: Path) -> bool:
    """Whether two names stand for one file: by inode where both exist (hard links, case), else by resolved path."""
    try:
        # A pipe or a terminal keeps nothing that could be lost.
        return first.samefile(second) and (first.is_file() or first.is_dir())
    except OSError:
        return os.path.realpath(first) == os.path.realpath(second)
