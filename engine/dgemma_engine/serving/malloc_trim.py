"""Memory that is free again, given back to the system: an allocator keeps it for later, between pieces that are in use.

A day of questions of every length leaves such gaps everywhere, and the process would only ever grow.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import Callable

# Memory that is given back has to be asked for again, page by page: some milliseconds of the next question.
_EVERY_S = 30.0
_LOOK_AGAIN_S = 0.1


def give_back() -> bool:
    """Gives back what can be given; returns whether this platform's C library can do that."""
    if sys.platform != "linux":
        return False
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:  # Not glibc.
        return False
    trim(0)
    return True


async def keep_giving_back(
    work_done: Callable[[], int],
    is_busy: Callable[[], bool],
    *,
    give: Callable[[], bool] = give_back,
    every_s: float = _EVERY_S,
) -> None:
    """Gives memory back now and then, in a moment without work and only after some; until it is cancelled.

    Args:
        work_done: a count that rises with work.
        is_busy: whether there is work now.
        give: see `give_back`; ends this if it says that it cannot.
        every_s: seconds between two times.
    """
    done, wait_s = work_done(), every_s
    while True:
        await asyncio.sleep(wait_s)
        is_due = work_done() != done
        if is_due and is_busy():
            wait_s = min(every_s, _LOOK_AGAIN_S)
            continue
        wait_s = every_s
        if is_due:
            done = work_done()
            if not await asyncio.to_thread(give):
                return
