"""Finds the Chromium that tests and benchmarks drive, and installs Debian's package where there is none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.debian_packages import ProgramMissingError, require_program

NAME = "chromium"
# A font for the pages, and the library that the Node of Playwright is linked against.
PACKAGES = (NAME, "fonts-dejavu-core", "libatomic1")


def get_chromium() -> Path:
    """Returns the program: the one that $CHROMIUM names, else `chromium` on PATH, installed if it is not there.

    Raises:
        ProgramMissingError: there is none and it cannot be installed.
    """
    named = os.environ.get("CHROMIUM")
    if not named:
        return require_program(NAME, PACKAGES, fix=", or set CHROMIUM to its path")
    program = shutil.which(named)
    if program is None:
        raise ProgramMissingError(f"There is no program {named}. Set CHROMIUM to the path of Chromium, or unset it.")
    return Path(program)
