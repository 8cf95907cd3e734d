"""Files that are whole after a loss of power: on the disk before they get the name under which they are read.

Standard library only.
"""

from __future__ import annotations

import os
from pathlib import Path


def sync_file(path: Path) -> None:
    """Waits until what was written to a file is on the disk.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk.

    Raises:
        OSError: it cannot be read.
    """
    # Windows opens no folder, and keeps renames in order by itself.
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(unfinished: Path, path: Path) -> None:
    """Gives a written file, or a folder whose files are on the disk, its final name.

    Args:
        unfinished: in the same folder as `path`.
        path: is replaced where it is a file, and must not be there where it is a folder.

    Raises:
        OSError: it cannot be written.
    """
    if unfinished.is_file():
        sync_file(unfinished)
    unfinished.replace(path)
    sync_folder(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file; where that fails, the file that was there is untouched.

    Args:
        path: in a folder that exists.
        content: all of the file.

    Raises:
        OSError: it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.part")
    try:
        unfinished.write_bytes(content)
        put_in_place(unfinished, path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
