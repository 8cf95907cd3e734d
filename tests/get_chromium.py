"""Finds the Chromium that tests and benchmarks drive, and installs Debian's package where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

NAME = "chromium"
# A font for the pages, and the library that the Node of Playwright is linked against.
PACKAGES = (NAME, "fonts-dejavu-core", "libatomic1")
# Another apt-get may run meanwhile.
LOCK_TIMEOUT_S = 300


class ChromiumMissingError(RuntimeError):
    """There is no Chromium, and it cannot be installed; the message names the cause and the fix."""


def get_chromium() -> Path:
    """Returns the program: the one that $CHROMIUM names, else `chromium` on PATH, installed if it is not there.

    Raises:
        ChromiumMissingError: there is none and it cannot be installed.
    """
    named = os.environ.get("CHROMIUM")
    program = shutil.which(named or NAME)
    if program is None and named:
        raise ChromiumMissingError(f"There is no program {named}. Set CHROMIUM to the path of Chromium, or unset it.")
    if program is None:
        _install()
        program = shutil.which(NAME)
    if program is None:
        raise ChromiumMissingError(f"apt-get installed {NAME}, and PATH has no such program. Set CHROMIUM to its path.")
    return Path(program)


def _install() -> None:
    fix = f"Install {NAME} with the system's package manager, or set CHROMIUM to its path."
    if not shutil.which("apt-get"):
        raise ChromiumMissingError(f"There is no {NAME}, and no apt-get to install it. {fix}")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt_get = ["apt-get", "-qq", "-o", f"DPkg::Lock::Timeout={LOCK_TIMEOUT_S}"]
    for command in ([*apt_get, "update"], [*apt_get, "install", "-y", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(command, env=environ, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            said = " ".join(done.stderr.split()) or f"it exited with {done.returncode}"
            raise ChromiumMissingError(f"apt-get cannot install {NAME}: {said[-500:]} {fix}")
