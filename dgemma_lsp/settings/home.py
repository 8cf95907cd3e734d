"""The user's home folder, which need not exist: a container may run as a user without `HOME` and without an account."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

NO_HOME = Path("/")
"""Stands for a home folder that is unknown: nothing below it is the user's, and it cannot be written."""


def home_folder(environ: Mapping[str, str]) -> Path | None:
    """Returns `HOME` where it is an absolute path, else the folder of the user's account, else None.

    Args:
        environ: the process's environment.
    """
    chosen = environ.get("HOME", "")
    if chosen.startswith("/"):
        return Path(chosen)
    try:
        account = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None
    return Path(account) if account.startswith("/") else None
