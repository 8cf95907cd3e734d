"""Folders of Ray's sessions, with logs and sockets: those of processes that have ended are removed."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import psutil

_NUM_TRIES, _PAUSE_S = 20, 0.25
# Ray names a session by its start and by the process that started it.
_SESSION = re.compile(r"session_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_\d+_(\d+)")


def remove_ended(folder: Path) -> None:
    """Removes the sessions whose process has ended; what cannot be removed stays.

    Args:
        folder: Ray's temporary folder; may be missing.
    """
    for session in sorted(folder.glob("session_*")):
        found = _SESSION.fullmatch(session.name)
        if found and not session.is_symlink() and not psutil.pid_exists(int(found[1])):
            shutil.rmtree(session, ignore_errors=True)
    # Ray cannot replace a link to nothing.
    if (latest := folder / "session_latest").is_symlink() and not latest.exists():
        latest.unlink()


def remove_own(folder: Path, pid: int) -> None:
    """Removes the sessions that a process started.

    Args:
        folder: Ray's temporary folder; may be missing.
        pid: of the process, whose Ray has ended.
    """
    for session in folder.glob(f"session_*_{pid}"):
        # Ray's processes write their last lines while they end.
        for _try in range(_NUM_TRIES):
            shutil.rmtree(session, ignore_errors=True)
            if not session.exists():
                break
            time.sleep(_PAUSE_S)
