"""Starts an engine in the background, detached from the caller, and returns why it did not start. Stdlib only."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from dgemma_engine.errors import SocketRefused
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.private_files import open_private

_MAX_LOG_BYTES = 1 << 20


def engine_command(
    location: EngineLocation, *, idle_minutes: float | None = None, unload_minutes: float | None = None
) -> list[str]:
    """Returns the command that runs the engine of `location` in its own process.

    Args:
        location: its model and device.
        idle_minutes: minutes without a client after which it ends; 0 is never, None leaves the default.
        unload_minutes: minutes without a request after which a model on a card is unloaded; likewise.
    """
    # -P: a torch.py in the current folder must not be imported.
    command = [sys.executable, "-P", "-m", "dgemma_engine", "start", "--foreground"]
    command += ["--model", location.model, "--device", location.device]
    for option, minutes in (("--idle-minutes", idle_minutes), ("--idle-unload-minutes", unload_minutes)):
        command += [] if minutes is None else [option, f"{minutes:g}"]
    return command


class Launch:
    """A started engine process: it outlives this one, and its output goes to the log of its location.

    Args:
        location: where it will answer; its directory must be prepared.
        command: the command line.

    Raises:
        SocketRefused: the log cannot be written.
    """

    def __init__(self, location: EngineLocation, command: Sequence[str]) -> None:
        self._log_path = location.log
        fd = _open_log(location.log)
        try:
            self._log_start = os.lseek(fd, 0, os.SEEK_END)
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=fd,
                stderr=fd,
                start_new_session=True,
                cwd=location.directory,
                env=os.environ | {"DGEMMA_RUNTIME_DIR": str(location.directory)},
            )
        finally:
            os.close(fd)
        # Collects the exit status whenever it comes, so that no zombie stays behind a long-lived editor.
        threading.Thread(target=self._process.wait, name="engine-reaper", daemon=True).start()

    @property
    def exit_code(self) -> int | None:
        """The process's exit code; None while it runs."""
        return self._process.returncode

    def last_line(self) -> str:
        """Returns the last line that the process wrote, or an empty string."""
        with self._log_path.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else ""


def _open_log(path: Path) -> int:
    try:
        fd = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW)
        if os.fstat(fd).st_size > _MAX_LOG_BYTES:
            os.ftruncate(fd, 0)
    except OSError as error:
        raise SocketRefused(f"{path}: cannot be written ({error.strerror}); set DGEMMA_RUNTIME_DIR") from error
    return fd
