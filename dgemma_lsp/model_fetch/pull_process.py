"""Runs `dgemma-engine pull NAME` and reads its progress. Downloads nothing itself: the server opens no connection."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from dgemma_lsp import child_process

# Long enough to end pip's process, too.
_END_S = 10.0


class PullFailed(Exception):
    """The model could not be fetched; the message is one sentence with the remedy."""


def pull_command(name: str) -> list[str]:
    """Returns the command that fetches a model and prints one JSON object a line.

    Args:
        name: short name of the model.
    """
    # -P: nothing of the folder that the server was started in is imported.
    return [sys.executable, "-P", "-m", "dgemma_engine", "pull", name, "--json"]


async def pull(command: Sequence[str], on_progress: Callable[[int, int], None]) -> None:
    """Fetches a model. Cancelling the caller ends the process; the next one goes on with what it left.

    Args:
        command: see `pull_command`.
        on_progress: called with the bytes that are there and the bytes of the whole.

    Raises:
        PullFailed: the process failed.
    """
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True
        )
    except OSError as error:
        raise PullFailed(f"{command[0]} cannot be run ({error.strerror}); install dgemma-lsp again") from error
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())
    try:
        async for line in process.stdout:
            if (report := _progress(line)) is not None:
                on_progress(*report)
        code = await process.wait()
        if code:
            raise PullFailed(_last_line(await errors) or f"dgemma-engine pull ended with exit code {code}; try again")
    finally:
        errors.cancel()
        await child_process.end(process, patience_s=_END_S)


def _progress(line: bytes) -> tuple[int, int] | None:
    """Returns the bytes there are and those of the whole; None for a line that holds something else."""
    try:
        report: Any = json.loads(line)
        return int(report["num_bytes"]), int(report["total_bytes"])
    except (ValueError, KeyError, TypeError):
        return None


def _last_line(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].removeprefix("dgemma-engine: ") if lines else ""
