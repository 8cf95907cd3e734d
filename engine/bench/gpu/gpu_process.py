"""Runs one part of the GPU report in a process of its own, which is ended with its children when its time is over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

# Seconds that a killed process is waited for: one inside the driver may never end.
KILL_S = 10.0


def in_process(command: Sequence[str], limit_s: float, environment: Mapping[str, str]) -> str | None:
    """Runs a command and returns its error, None if there was none.

    Args:
        command: program and arguments.
        limit_s: seconds until it is killed with the processes it started.
        environment: variables beside those of this process.
    """
    # A file, not a pipe: a child that outlives its parent would hold the pipe open.
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdout=errors, stderr=errors, env={**os.environ, **environment}, start_new_session=True
        )
        try:
            status = process.wait(timeout=limit_s)
            message = None if status == 0 else f"exit code {status}"
        except subprocess.TimeoutExpired:
            message = f"ended after {limit_s:.0f} s"
        finally:
            _end(process)
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    print(said, file=sys.stderr, end="", flush=True)
    return message if message is None else f"{message}: {said[-1_500:]}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and the rest of its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=KILL_S)
    except (ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
        return
