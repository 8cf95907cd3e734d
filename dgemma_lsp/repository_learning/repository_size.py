"""Whether a repository has more than a given number of files that completion may read. Opens none of them.

Folders are listed in a thread, so that a slow disk blocks nothing else, and only until 20,000 entries are
read.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

_MOST_ENTRIES = 20_000
# Files that are checked before the event loop gets a turn.
_AT_ONCE = 32
_SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__", "venv", "target", "dist", "build"})


async def has_more_files(root: Path, number: int, why_not_read: Callable[[Path, str], str | None]) -> bool:
    """Returns whether there are more files than `number`.

    Hidden files, links, and files in folders of built or installed files do not count.

    Args:
        root: the repository.
        number: at least 0.
        why_not_read: returns for a path, with an empty text, why it must not be read; None where it may be.
    """
    paths = await asyncio.to_thread(_files, root)
    count = 0
    for index, path in enumerate(paths):
        if count + len(paths) - index <= number:
            return False
        if index % _AT_ONCE == 0:
            await asyncio.sleep(0)
        count += why_not_read(path, "") is None
        if count > number:
            return True
    return False


def _files(root: Path) -> list[Path]:
    paths: list[Path] = []
    num_entries = 0
    for folder, subfolders, names in os.walk(root):
        num_entries += len(subfolders) + len(names)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name not in _SKIPPED_FOLDERS)
        paths += [path for name in names if not name.startswith(".") and not (path := Path(folder, name)).is_symlink()]
        if num_entries > _MOST_ENTRIES:
            break
    return paths
