"""The real server process and its pipes, with a limit on every wait, and a pool that starts processes ahead of time."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

_CHUNK = 1 << 16


class ServerProcess:
    """One server on stdio.

    Args:
        environ: of the process.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dgemma_lsp"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=dict(environ),
            bufsize=0,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin: int | None = self._process.stdin.fileno()
        self._stdout: int | None = self._process.stdout.fileno()
        os.set_blocking(self._stdin, False)
        os.set_blocking(self._stdout, False)
        self._unsent = b""

    @property
    def exit_code(self) -> int | None:
        """None while the process runs."""
        return self._process.poll()

    def write(self, data: bytes) -> None:
        """Queues bytes; they leave with the next `exchange`."""
        self._unsent += data

    def exchange(self, wait_s: float) -> bytes | None:
        """Writes and reads what is possible; None when the server's output has ended.

        Args:
            wait_s: longest wait until something can be read; 0 does not wait.
        """
        give_up_s = time.monotonic() + wait_s
        while True:
            left_s = max(0.0, give_up_s - time.monotonic())
            readers = [self._stdout] if self._stdout is not None else []
            writers = [self._stdin] if self._unsent and self._stdin is not None else []
            readable, writable, _ = select.select(readers, writers, [], left_s)
            if writable:
                self._write_some()
            if readable:
                return os.read(self._stdout, _CHUNK) or None if self._stdout is not None else None
            if not writable and not left_s:
                return b""
            if not readers and not writers:
                return None

    def flush(self, limit_s: float) -> bytes:
        """Writes all that is queued; returns what was read meanwhile."""
        read, give_up_s = b"", time.monotonic() + limit_s
        while self._unsent and self._stdin is not None and time.monotonic() < give_up_s:
            if (more := self.exchange(0.01)) is None:
                break
            read += more
        return read

    def close_stdin(self) -> None:
        """Closes the standard input of the server."""
        if self._stdin is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._stdin, self._unsent = None, b""

    def close_stdout(self) -> None:
        """Closes the standard output of the server."""
        if self._stdout is not None:
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._stdout = None

    def end(self, limit_s: float) -> int | None:
        """Waits for the end of the process and returns its exit code; kills it and returns None after the limit."""
        try:
            return self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return None

    def errors(self) -> str:
        """Returns what the server wrote to standard error."""
        self._errors.seek(0)
        return self._errors.read().decode("utf-8", "replace")

    def close(self) -> None:
        """Kills the process if it runs, and closes its pipes."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self.close_stdin()
        self.close_stdout()
        self._errors.close()

    def _write_some(self) -> None:
        assert self._stdin is not None
        try:
            written = os.write(self._stdin, self._unsent[:_CHUNK])
        except BlockingIOError:
            return
        except BrokenPipeError:  # The server no longer reads; `exchange` reports when its output ends.
            self.close_stdin()
            return
        self._unsent = self._unsent[written:]


class ServerPool:
    """Servers that have started before they are needed.

    Args:
        folder: for the engine's socket and the server's counts.
        spares: how many start ahead: 0 makes every session wait for Python.
    """

    def __init__(self, folder: Path, *, spares: int = 2) -> None:
        paths = os.pathsep.join(str(path) for path in sys.path if path)
        self._environ = os.environ | {
            "DGEMMA_RUNTIME_DIR": str(folder),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_DATA_HOME": str(folder / "data"),  # no model was fetched into it, so `tiny` answers
            "PYTHONPATH": paths,
        }
        self._spares = [ServerProcess(self._environ) for _ in range(spares)]

    def take(self) -> ServerProcess:
        """Returns a server to which nothing was sent."""
        self._spares.append(ServerProcess(self._environ))
        return self._spares.pop(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for spare in self._spares:
            spare.close()
