"""A living engine process that cannot be reached: its id, the reason, its number of clients, and how to end it.

Reads the lock and, on Linux, /proc. Elsewhere a stopped process or a removed socket looks like a slow engine,
so none is found there. Standard library only.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dgemma_engine.errors import EngineUnavailable
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.lock_file import holder_pid

_TERM_PATIENCE_S = 5.0
_KILL_PATIENCE_S = 5.0
# States in /proc/net/unix; a connection that waits to be accepted has no inode yet.
_CONNECTED, _LISTENING = "03", "00010000"
# The two ends hold each other: of a connection whose client has gone, only the engine's own reference is left.
_REFERENCES_OF_BOTH_ENDS = 3


class Silence(StrEnum):
    """Why an engine cannot be reached."""

    STOPPED = "is stopped"
    NO_SOCKET = "has lost its socket"


@dataclass(frozen=True, slots=True, kw_only=True)
class SilentEngine:
    """A living engine that no client can reach.

    Attributes:
        pid: its process id.
        silence: why it cannot be reached.
        num_clients: connections that it accepted and whose clients still live.
        location: where it should answer.
    """

    pid: int
    silence: Silence
    num_clients: int
    location: EngineLocation

    def __str__(self) -> str:
        cause = {
            Silence.STOPPED: "is stopped (by a signal or a debugger)",
            Silence.NO_SOCKET: f"has lost its socket {self.location.socket} (removed)",
        }[self.silence]
        return f"engine process {self.pid} runs and does not answer: it {cause}; end it: {self.remedy}"

    @property
    def remedy(self) -> str:
        """The command that ends it."""
        return self.location.stop_command


def find_silent(location: EngineLocation) -> SilentEngine | None:
    """Returns the engine of `location` if it lives and cannot be reached; None if there is none, or it can be.

    Raises:
        SocketRefused: the lock cannot be opened.
    """
    pid = holder_pid(location.lock)
    if pid is None or not _holds(pid, location.lock):
        return None
    listening, num_clients = _sockets(location.socket)
    if _is_stopped(pid):
        silence = Silence.STOPPED
    elif listening and not location.socket.exists():
        # An engine that starts or ends holds the lock without listening.
        silence = Silence.NO_SOCKET
    else:
        return None
    return SilentEngine(pid=pid, silence=silence, num_clients=num_clients, location=location)


def no_answer(location: EngineLocation, timeout_s: float) -> EngineUnavailable:
    """Returns the fault of an engine that did not answer in time; names its process where there is one."""
    pid = holder_pid(location.lock)
    who = "the engine" if pid is None else f"engine process {pid} runs and"
    remedy = "" if pid is None else f"end it: {location.stop_command}, or "
    return EngineUnavailable(
        f"{who} did not answer on {location.socket} within {timeout_s:g} s; {remedy}see {location.log}"
    )


async def end_unused(location: EngineLocation) -> bool:
    """Ends an engine that cannot be reached and has no client; returns whether the location is free."""
    silent = find_silent(location)
    return silent is None or (silent.num_clients == 0 and await end_process(location, silent.pid))


async def end_process(location: EngineLocation, pid: int) -> bool:
    """Ends the engine that holds the lock of `location`: asks first, kills after 5 s; returns whether the lock is free.

    Args:
        location: whose lock it holds.
        pid: its process id; no other holder is signalled.
    """
    # A stopped process takes SIGTERM only once it continues.
    for signals, patience_s in (
        ((signal.SIGTERM, signal.SIGCONT), _TERM_PATIENCE_S),
        ((signal.SIGKILL,), _KILL_PATIENCE_S),
    ):
        for number in signals:
            if holder_pid(location.lock) == pid:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + patience_s
        while loop.time() < give_up_s:
            if holder_pid(location.lock) != pid:
                return True
            await asyncio.sleep(0.02)
    return False


def _holds(pid: int, lock: Path) -> bool:
    """Whether the process has the lock file open; the number may be that of another container's process."""
    try:
        wanted = lock.stat()
    except OSError:
        return False
    return any(os.path.samestat(status, wanted) for status in _open_files(pid))


def _open_files(pid: int) -> Generator[os.stat_result]:
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                yield Path(entry.path).stat()


def _is_stopped(pid: int) -> bool:
    try:
        # The name before the state is in brackets and may hold any character.
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in (b"T", b"t")


def _sockets(path: Path) -> tuple[bool, int]:
    """Returns whether a process listens on a socket of that name, and how many accepted connections have a client."""
    try:
        lines = Path("/proc/net/unix").read_bytes().splitlines()[1:]
    except OSError:
        return False, 0
    listening, num_clients = False, 0
    for line in lines:
        # Num RefCount Protocol Flags Type St Inode Path
        fields = line.split(None, 7)
        if len(fields) != 8 or fields[7] != os.fsencode(path):
            continue
        references, flags, state, inode = int(fields[1], 16), fields[3].decode(), fields[5].decode(), int(fields[6])
        listening |= flags == _LISTENING
        num_clients += state == _CONNECTED and inode != 0 and references >= _REFERENCES_OF_BOTH_ENDS
    return listening, num_clients
