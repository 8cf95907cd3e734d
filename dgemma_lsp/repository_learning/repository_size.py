"""Whether a repository has more than a given number of files that completion may read. Opens none of them.

Folders are listed in a thread, so that a slow disk blocks nothing else, and at most 20,000 entries are read.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from itertools import islice
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
    pending, num_entries = [str(root)], 0
    while pending and num_entries < _MOST_ENTRIES:
        try:
            with os.scandir(pending.pop()) as folder:
                entries = list(islice(folder, _MOST_ENTRIES - num_entries))
        except OSError:
            continue
        num_entries += len(entries)
        shown = [entry for entry in entries if not entry.name.startswith(".")]
        paths += [Path(entry) for entry in shown if entry.is_file(follow_symlinks=False)]
        subfolders = [entry for entry in shown if entry.is_dir(follow_symlinks=False)]
        pending += sorted((entry.path for entry in subfolders if entry.name not in _SKIPPED_FOLDERS), reverse=True)
    return paths
