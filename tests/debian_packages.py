"""Programs that tests need and pip does not bring: found on PATH, or installed with Debian's packages."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

# Another apt-get may run meanwhile.
LOCK_TIMEOUT_S = 300
# `apt-get update` does not wait for another: test processes install one after the other.
LOCK = Path(tempfile.gettempdir()) / f"dgemma-install-{os.getuid()}.lock"


class ProgramMissingError(RuntimeError):
    """A program is missing, and cannot be installed; the message names the cause and the fix."""


def require_program(name: str, packages: Sequence[str], fix: str = "") -> Path:
    """Returns a program, installed if it is not on PATH.

    Args:
        name: of the program.
        packages: Debian's packages to install.
        fix: a further remedy for the message.

    Raises:
        ProgramMissingError: the program is missing and cannot be installed.
    """
    fix = f"Install {name} with the system's package manager{fix}."
    program = shutil.which(name)
    if program is None:
        if not shutil.which("apt-get"):
            raise ProgramMissingError(f"There is no {name}, and no apt-get to install it. {fix}")
        with LOCK.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if shutil.which(name) is None:
                _install(name, packages, fix)
        program = shutil.which(name)
    if program is None:
        raise ProgramMissingError(f"apt-get ran, and PATH has no {name} yet. {fix}")
    return Path(program)


def _install(name: str, packages: Sequence[str], fix: str) -> None:
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt_get = ["apt-get", "-qq", "-o", f"DPkg::Lock::Timeout={LOCK_TIMEOUT_S}"]
    for command in ([*apt_get, "update"], [*apt_get, "install", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(command, env=environ, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            said = " ".join(done.stderr.split()) or f"it exited with {done.returncode}"
            raise ProgramMissingError(f"apt-get cannot install {name}: {said[-500:]} {fix}")
