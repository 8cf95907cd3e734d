"""When each file of a repository was last changed: from its git history where there is one, else from the disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_MOST_COMMITS = 2_000
_TIMEOUT_S = 20.0
# Settings of a repository that would start other programs, and ways to its remote.
_SAFE_OPTIONS = ("--no-pager", "-c", "core.fsmonitor=false", "-c", "log.showSignature=false")
_SAFE_ENVIRONMENT = {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}


def change_times(root: Path, names: Sequence[str], environ: Mapping[str, str]) -> list[float]:
    """Returns seconds since the epoch for each file; a file that no recent commit changed counts as the oldest.

    Args:
        root: folder of the repository.
        names: files, relative to it, with slashes.
        environ: the process's environment, for git.
    """
    committed = _committed_s(root, environ)
    if not committed:
        return [_modified_s(root / name) for name in names]
    oldest_s = min(committed.values())
    return [committed.get(name, oldest_s) for name in names]


def _committed_s(root: Path, environ: Mapping[str, str]) -> dict[str, float]:
    """Returns the time of the last commit of each file by its name; empty where there is no history."""
    command = ["git", *_SAFE_OPTIONS, "-C", str(root), "log", f"--max-count={_MOST_COMMITS}", "--no-renames", "-z"]
    command += ["--relative", "--name-only", "--format=%x01%ct"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            timeout=_TIMEOUT_S,
            env={**environ, **_SAFE_ENVIRONMENT},
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    times, now_s = dict[str, float](), 0.0
    # A commit is a mark, its time and a NUL; then come its names, a line break before the first, a NUL after each.
    for part in done.stdout.split(b"\0") if done.returncode == 0 else ():
        if (name := part.lstrip(b"\n")).startswith(b"\x01"):
            now_s = float(name[1:])
        elif name:
            times.setdefault(os.fsdecode(name), now_s)
    return times


def _modified_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
