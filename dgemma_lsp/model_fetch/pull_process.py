"""Runs `dgemma-engine pull NAME` and reads its progress. Downloads nothing itself: the server opens no connection."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from dgemma_lsp import child_process

# Long enough to end pip's process as well.
_END_S = 10.0


def pull_command(name: str) -> list[str]:
    """Returns the command that fetches a model and prints one JSON object a line.

    Args:
        name: short name of the model.
    """
    # -P: nothing of the folder that the server was started in is imported.
    return [sys.executable, "-P", "-m", "dgemma_engine", "pull", name, "--json"]


async def pull(command: Sequence[str], on_progress: Callable[[int, int], None]) -> None:
    """Fetches a model. Cancelling the caller ends the process; the next one continues its download.

    Args:
        command: see `pull_command`.
        on_progress: called with the bytes downloaded so far and the bytes in total.

    Raises:
        ProcessFailed: the model could not be fetched; the message has the remedy.
    """

    def read(line: bytes) -> None:
        if (report := _progress(line)) is not None:
            on_progress(*report)

    await child_process.run(command, read, name="dgemma-engine pull", patience_s=_END_S)


def _progress(line: bytes) -> tuple[int, int] | None:
    """Returns the bytes downloaded so far and in total; None for a line that holds something else."""
    try:
        report: Any = json.loads(line)
        return int(report["num_bytes"]), int(report["total_bytes"])
    except (ValueError, KeyError, TypeError):
        return None
