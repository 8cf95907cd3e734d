"""Folders and files that only their owner may use: their modes are set, whatever the umask is or was.

On Windows a user's folders are private as they are, and modes have no meaning. Standard library only.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


_FOLDER_MODE, _FILE_MODE = 0o700, 0o600
_HAS_MODES = hasattr(os, "geteuid")
# Without the second Windows changes line ends, and ends a file at Ctrl-Z.
_ALWAYS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def make_private_folder(folder: Path) -> None:
    """Creates a folder and those above it that are missing.

    Raises:
        FileNotFoundError: another process removed one of them meanwhile.
        OSError: it cannot be created.
    """
    missing: list[Path] = []
    while not folder.is_dir() and folder not in missing:
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        try:
            one.mkdir(mode=_FOLDER_MODE)
        except FileExistsError:
            # Another process made it, and may have removed it again by now.
            if not stat.S_ISDIR(one.stat().st_mode):
                raise
        one.chmod(_FOLDER_MODE)


def mend_folder(folder: Path) -> None:
    """Gives a folder that is there the mode of a private one; one that is not there or not ours is left as it is."""
    if not _HAS_MODES:
        return
    with suppress(OSError):
        if stat.S_IMODE(folder.stat().st_mode) != _FOLDER_MODE:
            folder.chmod(_FOLDER_MODE)


def open_private(path: Path, flags: int) -> int:
    """Opens a file, with the mode of a private one; returns the file descriptor.

    Args:
        path: the file.
        flags: of `os.open`.

    Raises:
        OSError: it cannot be opened.
    """
    flags |= _ALWAYS
    try:
        descriptor = os.open(path, flags, _FILE_MODE)
    except PermissionError:
        # A file of ours that another umask left without rights for anyone.
        if not _HAS_MODES or not _is_own_file(path):
            raise
        path.chmod(_FILE_MODE)
        descriptor = os.open(path, flags, _FILE_MODE)
    if _HAS_MODES:
        with suppress(OSError):
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != _FILE_MODE:
                os.fchmod(descriptor, _FILE_MODE)
    return descriptor


def try_lock(descriptor: int) -> bool:
    """Locks an open file for this process, until it is closed; returns whether no other process holds the lock.

    Args:
        descriptor: of a file that is open for writing.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        _lock(descriptor)
    except (BlockingIOError, PermissionError):
        return False
    return True


def keep_own_rights() -> None:
    """Removes the bits of this process's umask that deny rights to the owner: whatever it writes, its user can read.

    The rights of the group and of others stay as the user chose.
    """
    os.umask(os.umask(0o077) & 0o077)


def _is_own_file(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
