"""Returns freed memory to the system while the engine is idle: the C allocator keeps it between blocks that are in use.

A day of requests of every length leaves such gaps everywhere, and the process would only grow.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import Callable

# Returned memory is faulted in again page by page, which takes milliseconds of the next request.
_EVERY_S = 30.0
_BUSY_RETRY_S = 0.1


def trim_heap() -> bool:
    """Calls malloc_trim(); returns whether this platform's C library has it."""
    if sys.platform != "linux":
        return False
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:  # Not glibc.
        return False
    trim(0)
    return True


async def trim_when_idle(
    work_done: Callable[[], int],
    is_busy: Callable[[], bool],
    *,
    trim: Callable[[], bool] = trim_heap,
    every_s: float = _EVERY_S,
) -> None:
    """Trims the heap every `every_s` seconds, while idle and only after new work; until it is cancelled.

    Args:
        work_done: a count that rises with work.
        is_busy: whether there is work now.
        trim: see `trim_heap`; the loop ends if it returns False.
        every_s: seconds between two trims.
    """
    done, wait_s = work_done(), every_s
    while True:
        await asyncio.sleep(wait_s)
        is_due = work_done() != done
        if is_due and is_busy():
            wait_s = min(every_s, _BUSY_RETRY_S)
            continue
        wait_s = every_s
        if is_due:
            done = work_done()
            if not await asyncio.to_thread(trim):
                return
