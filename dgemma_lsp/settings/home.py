"""The user's home folder and the folder for counts; neither need exist: a container may run as a user without account.

`platformdirs` gives the folders of Windows. Elsewhere the folder for state is that of the XDG specification.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

NO_HOME = Path("/")
"""Stands for a home folder that is unknown: nothing below it is the user's, and it cannot be written."""

_NAME = "dgemma-lsp"


def home_folder(environ: Mapping[str, str]) -> Path | None:
    """Returns `HOME` where it is an absolute path, else the folder of the user's account, else None.

    Args:
        environ: the process's environment.
    """
    if sys.platform == "win32":
        profile = environ.get("USERPROFILE", "")
        return Path(profile) if profile else None
    chosen = environ.get("HOME", "")
    if chosen.startswith("/"):
        return Path(chosen)
    import pwd

    try:
        account = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None
    return Path(account) if account.startswith("/") else None


def state_folder(environ: Mapping[str, str], *, home: Path) -> Path:
    """Returns this user's folder for counts and choices: below `XDG_STATE_HOME` where that is an absolute path, else
    below `~/.local/state`; on Windows below `%LOCALAPPDATA%`.

    Args:
        environ: the process's environment.
        home: the user's home folder.
    """
    chosen = Path(environ.get("XDG_STATE_HOME", ""))
    if chosen.is_absolute():
        return chosen / _NAME
    if sys.platform == "win32":
        from platformdirs.windows import Windows

        return Path(Windows(_NAME, appauthor=False).user_state_dir)
    return home / ".local" / "state" / _NAME
