"""Keeps `dgemma-engine serve` running on the address that the settings name, for as long as this server runs.

The program is a process of its own, as the engine is: the server opens no port and parses no network input. It ends
when its standard input closes, so also with a server that was killed. Where the port is in use, by another window's
program or a foreign one, it is started again after a pause: another window takes over when the first one closes.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence

from dgemma_lsp import child_process
from dgemma_lsp.engine_client.connector import chosen_model
from dgemma_lsp.settings.settings import Settings

_log = logging.getLogger(__name__)

PORT_IN_USE = 3
"""Exit code of `dgemma-engine serve` where another program listens on the address."""
_END_S = 5.0


def serve_command(settings: Settings) -> list[str] | None:
    """Returns the command that serves the engine of these settings over HTTP; None where it is not to be served.

    Args:
        settings: address, model, device, and whether an engine may be started.
    """
    choice = chosen_model(settings)
    is_there = choice.missing is None or choice.is_stand_in
    if settings.engine_url or not (
        settings.engine_http and settings.enabled and settings.engine_autostart and is_there
    ):
        return None
    # -P: nothing of the folder that the server was started in is imported.
    command = [sys.executable, "-P", "-m", "dgemma_engine", "serve", "--end-with-input", "--http", settings.engine_http]
    return [*command, "--model", choice.runs, "--device", settings.engine_device]


class HttpServerProcess:
    """Keeps one process of a given command running.

    Args:
        warn: shows the user why the process cannot run.
        pause_s: seconds until the next attempt after the process has ended: small takes over sooner from a window that
            closes, large starts fewer processes in vain.
    """

    def __init__(self, warn: Callable[[str], None], *, pause_s: float = 60.0) -> None:
        self._warn = warn
        self._pause_s = pause_s
        self._command: Sequence[str] | None = None
        self._keeping: asyncio.Task[None] | None = None

    def configure(self, command: Sequence[str] | None) -> None:
        """Runs this command from now on, and ends the one before; does nothing where it is the same.

        Args:
            command: see `serve_command`; None runs nothing.
        """
        if command == self._command:
            return
        self._command = command
        before = self._keeping
        self._keeping = asyncio.create_task(self._keep(before, command))

    async def close(self) -> None:
        """Ends the process."""
        self.configure(None)
        if self._keeping is not None:
            await self._keeping

    async def _keep(self, before: asyncio.Task[None] | None, command: Sequence[str] | None) -> None:
        if before is not None:
            before.cancel()
            await asyncio.wait([before])
        while command is not None:
            try:
                code, message = await _run(command)
            except OSError as error:
                code, message = 1, child_process.cannot_run(command[0], error)
            if code == PORT_IN_USE:
                _log.info("engine.http: the port is in use; another window may serve it")
            else:
                self._warn(f"dgemma.engine.http: {message or child_process.ended('dgemma-engine serve', code)}")
            await asyncio.sleep(self._pause_s)


async def _run(command: Sequence[str]) -> tuple[int, str]:
    """Runs a command until it ends; returns its exit code and the last line that it wrote to standard error.

    Cancelling the caller ends the process.
    """
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=null, stderr=pipe, start_new_session=True
    )
    assert process.stderr is not None
    last = b""
    try:
        async for line in process.stderr:
            last = line
        return await process.wait(), child_process.last_line(last)
    finally:
        await child_process.end(process, patience_s=_END_S)
