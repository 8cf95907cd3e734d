"""Whether a resident engine of this user answers requests, by the processor time that its process has used.

An engine that waits uses none; one that loads or answers uses most of a core. Reading the time opens no connection,
so an engine that nothing else uses still ends when it is idle, and the engine does no work for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import psutil

from dgemma_engine.errors import SocketRefused
from dgemma_engine.ipc.running_engines import running_engines

# More than a waiting engine uses in minutes, less than one answer of the smallest model takes.
_ANSWER_S = 0.05


class EngineActivity:
    """Engines that are watched.

    Args:
        find: returns the process ids of the engines that run.
        used_s: returns the processor time that a process has used, in seconds; None where it has ended.
    """

    def __init__(self, find: Callable[[], Sequence[int]], used_s: Callable[[int], float | None]) -> None:
        self._find, self._used_s = find, used_s
        self._last_s = dict[int, float]()

    @classmethod
    def of_user(cls, environ: Mapping[str, str]) -> EngineActivity:
        """Watches all engines of this user, of whatever model and device.

        Args:
            environ: says where their sockets are.
        """
        return cls(lambda: _engine_pids(environ), _used_s)

    def __call__(self) -> bool:
        """Returns whether any engine worked since the last call; False of one that was not seen before."""
        now_s = {pid: used_s for pid in self._find() if (used_s := self._used_s(pid)) is not None}
        last_s, self._last_s = self._last_s, now_s
        return any(used_s - last_s.get(pid, used_s) >= _ANSWER_S for pid, used_s in now_s.items())


def _engine_pids(environ: Mapping[str, str]) -> list[int]:
    # Without a folder for sockets no engine runs.
    with suppress(SocketRefused):
        return [engine.pid for engine in running_engines(environ)]
    return []


def _used_s(pid: int) -> float | None:
    with suppress(psutil.Error):
        times = psutil.Process(pid).cpu_times()
        return times.user + times.system
    return None
