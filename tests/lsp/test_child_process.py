"""Processes that end when they are asked to, and one that does not."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest

from dgemma_lsp import child_process

READY = "print('ready', flush=True); "
SLEEP = "import time; time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "


async def started(code: str) -> asyncio.subprocess.Process:
    """Returns a process that has printed `ready`."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize(
    ("code", "patience_s", "ended_by"),
    [(READY + SLEEP, 60.0, signal.SIGTERM), (DEAF + READY + SLEEP, 0.05, signal.SIGKILL)],
)
async def test_end_asks_and_kills_what_does_not_end(code: str, patience_s: float, ended_by: signal.Signals) -> None:
    process = await started(code)
    await child_process.end(process, patience_s=patience_s)
    assert process.returncode == -ended_by


async def test_end_of_an_ended_process_changes_nothing() -> None:
    process = await started(READY + "raise SystemExit(7)")
    await process.wait()
    await child_process.end(process, patience_s=0.05)
    assert process.returncode == 7
