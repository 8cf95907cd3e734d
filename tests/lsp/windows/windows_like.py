"""Takes from this process what Windows does not have, then runs a program: `python windows_like.py MODULE ARGUMENT...`.

The standard library and what is not ours keep their own system: they are imported first, before `sys.platform` changes.
Drives are folders `c:` and so on of the current folder. Writes nothing by itself.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
from functools import partial
from importlib import import_module
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

MODULES = ("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "syslog", "posix_ipc")
OF_OS = (
    "getuid", "geteuid", "getgid", "getegid", "fchmod", "fchown", "pidfd_open", "fork", "setsid", "getpgid", "killpg",
    "pread", "pwrite", "sysconf", "sched_getaffinity", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY",
)  # fmt: skip
OF_ASYNCIO = ("open_unix_connection", "start_unix_server")
SIGNALS = ("SIGKILL", "SIGCONT", "SIGHUP", "SIGSTOP", "SIGUSR1", "SIGCHLD")
FOREIGN = (
    "anyio._backends._asyncio", "attrs", "cattrs", "httpx2", "httpcore2", "lsprotocol.types", "platformdirs",
    "pygls.lsp.server", "pygls.io_", "truststore", "subprocess", "multiprocessing", "concurrent.futures.thread",
    "encodings.idna", "stringprep", "h11", "uuid", "tempfile", "shutil", "asyncio.subprocess",
)  # fmt: skip


class _Missing(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname in MODULES:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def _msvcrt() -> ModuleType:
    """Returns the lock of Windows, made of the one here."""
    flock, flags = fcntl.flock, fcntl.LOCK_EX | fcntl.LOCK_NB

    def locking(descriptor: int, mode: int, num_bytes: int) -> None:
        assert (mode, num_bytes) == (2, 1)
        try:
            flock(descriptor, flags)
        except BlockingIOError:
            raise PermissionError(13, "Permission denied") from None

    module: Any = ModuleType("msvcrt")
    module.LK_NBLCK, module.locking = 2, locking
    return module


def become_windows() -> None:
    for name in FOREIGN:
        import_module(name)
    # The other way of `platformdirs` asks a library of Windows.
    windows = import_module("platformdirs.windows")
    windows.get_win_folder = windows.get_win_folder_from_env_vars
    sys.modules["msvcrt"] = _msvcrt()
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, _Missing())
    # An event loop wakes itself through a pair of sockets, which are none of the network's on Windows either.
    socket.socketpair = partial(socket.socketpair, socket.AF_UNIX)
    for holder, names in ((os, OF_OS), (asyncio, OF_ASYNCIO), (signal, SIGNALS), (socket, ("AF_UNIX",))):
        for name in names:
            if hasattr(holder, name):
                delattr(holder, name)
    # What Windows has instead of a setting of the terminal.
    sys.platform = "win32"


def main() -> int:
    become_windows()
    module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    return import_module(module).main(arguments)


if __name__ == "__main__":
    sys.exit(main())
