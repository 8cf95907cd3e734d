"""The lock that allows one engine per location: the kernel holds it for a living process and frees a dead one's.

The file is never removed (two processes could then lock two files of one name); it holds the process id of its holder,
or of one that was killed.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from dgemma_engine.errors import SocketRefused
from dgemma_engine.private_files import open_private

_PATIENCE_S = 1.0


class EngineLock:
    """An acquired lock; a context manager that releases it.

    Args:
        fd: descriptor of the locked file, owned by this object from now on.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def acquire(cls, path: Path) -> Self | None:
        """Takes the lock and writes this process's id into it; None when another process holds it.

        Raises:
            SocketRefused: the file cannot be opened.
        """
        fd = _open(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            os.close(fd)
            return None
        except OSError as error:
            os.close(fd)
            raise SocketRefused(f"{path}: cannot be locked ({error.strerror}); set DGEMMA_RUNTIME_DIR") from error
        return cls(fd)

    @classmethod
    async def acquire_or_holder(cls, path: Path) -> Self | int:
        """Takes the lock, or returns the process id of the engine that holds it; 0 if that is unknown.

        Tries again for at most 1 s while no living engine has written its id: the holder may be about to write it, or
        be a process that only checks whether the lock is held.

        Raises:
            SocketRefused: the file cannot be opened.
        """
        import psutil  # Of the extra `engine`; a client that reads locks has none.

        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + _PATIENCE_S
        while (lock := cls.acquire(path)) is None:
            pid = holder_pid(path)
            if pid is not None and psutil.pid_exists(pid):
                return pid
            if loop.time() > give_up_s:
                return 0
            await asyncio.sleep(0.02)
        return lock

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.ftruncate(self._fd, 0)
        os.close(self._fd)


def holder_pid(path: Path) -> int | None:
    """Returns the process id of the engine that holds the lock; None when none does or it has not written it yet.

    Raises:
        SocketRefused: the file cannot be opened.
    """
    if not path.exists():
        return None
    fd = _open(path)
    try:
        # A shared lock that is released at once: an engine that starts in this instant tries again.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(fd)
    return None


def _open(path: Path) -> int:
    try:
        return open_private(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    except OSError as error:
        raise SocketRefused(f"{path}: cannot be opened ({error.strerror}); set DGEMMA_RUNTIME_DIR") from error
