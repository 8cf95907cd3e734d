"""The editor's process: waits until it has ended, even if another process still holds its pipe."""

from __future__ import annotations

import asyncio
import os
import sys

_POLL_S = 2.0


class ClientProcess:
    """A process that runs. On Linux a later process with the same id is not mistaken for it.

    Args:
        pid: its id.
        poll_s: seconds between two checks where the system does not report the end.

    Raises:
        ProcessLookupError: there is no such process here: the editor may run in another container or machine.
    """

    def __init__(self, pid: int, *, poll_s: float = _POLL_S) -> None:
        if sys.platform == "win32" or pid <= 0:
            raise ProcessLookupError
        self._pid = pid
        self._poll_s = poll_s
        self._descriptor = _descriptor(pid)
        if self._descriptor is None and not _is_alive(pid):
            raise ProcessLookupError

    async def end(self) -> None:
        """Returns when the process has ended; to be awaited once."""
        if self._descriptor is None:
            while _is_alive(self._pid):  # noqa: ASYNC110 - the system reports no event
                await asyncio.sleep(self._poll_s)
            return
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        try:
            loop.add_reader(self._descriptor, ended.set)
            await ended.wait()
        finally:
            loop.remove_reader(self._descriptor)
            os.close(self._descriptor)


def _descriptor(pid: int) -> int | None:
    """Returns a descriptor that can be read once the process has ended; None where the system has none."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except (AttributeError, OSError, OverflowError):
        # Not Linux, an old kernel, or a sandbox that forbids the call.
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
