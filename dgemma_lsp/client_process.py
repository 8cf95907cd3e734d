"""The editor's process: waits until it has ended, whoever else holds its pipe."""

from __future__ import annotations

import asyncio
import os
import sys

_POLL_S = 2.0


async def process_end(pid: int, *, poll_s: float = _POLL_S) -> None:
    """Returns when a process has ended; another process that gets its id later is not taken for it on Linux.

    Args:
        pid: of a process that runs.
        poll_s: seconds between two looks where the system does not report the end by itself.

    Raises:
        ProcessLookupError: there is no such process here: the editor may run in another container or machine.
    """
    if sys.platform == "win32" or pid <= 0:
        raise ProcessLookupError
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except (AttributeError, OSError, OverflowError):
        # Not Linux, or an old or confined one.
        await _polled_end(pid, poll_s)
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(descriptor, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def _polled_end(pid: int, poll_s: float) -> None:
    if not _is_alive(pid):
        raise ProcessLookupError
    while _is_alive(pid):  # noqa: ASYNC110 - no event tells it here
        await asyncio.sleep(poll_s)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
