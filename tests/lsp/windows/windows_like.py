"""Removes from this process what Windows lacks, then runs a program: `python windows_like.py MODULE ARGUMENT...`.

The standard library and third-party packages are imported before `sys.platform` changes, and so keep this system.
Paths are those of Windows, in `os`, `os.path` and `pathlib`. Drives are folders `c:` and so on of the current folder:
functions that open files turn backslashes into slashes and a drive letter into lower case. Writes nothing by itself.
"""

from __future__ import annotations

import asyncio
import builtins
import fcntl
import io
import ntpath
import os
import pathlib
import posixpath
import re
import signal
import socket
import sys
from collections.abc import Callable
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
TAKING_PATHS = (
    "access", "chdir", "chmod", "link", "listdir", "lstat", "mkdir", "open", "readlink", "remove", "rename", "replace",
    "rmdir", "scandir", "stat", "symlink", "unlink", "utime",
)  # fmt: skip
_DRIVE = re.compile("[A-Za-z]:")
SIGNALS = ("SIGKILL", "SIGCONT", "SIGHUP", "SIGSTOP", "SIGUSR1", "SIGCHLD")
FOREIGN = (
    "anyio._backends._asyncio", "attrs", "cattrs", "httpx2", "httpcore2", "lsprotocol.types", "platformdirs",
    "pygls.lsp.server", "pygls.io_", "truststore", "subprocess", "multiprocessing", "concurrent.futures.thread",
    "encodings.idna", "stringprep", "h11", "uuid", "tempfile", "shutil", "asyncio.subprocess", "urllib.request",
)  # fmt: skip


class _Missing(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname in MODULES:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def _msvcrt() -> ModuleType:
    """Returns the module of Windows's file lock, over `flock`."""
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


def _here(path: Any) -> Any:
    """Returns a path of Windows as this system opens it; any other value unchanged."""
    if not isinstance(path, str | os.PathLike) or not isinstance(name := os.fspath(path), str):
        return path
    name = name.removeprefix("\\\\?\\").replace("\\", "/")
    return name[0].lower() + name[1:] if _DRIVE.match(name) else name


def _opening(own: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        return own(*(_here(argument) for argument in arguments), **named)

    return wrapped


def _realpath(path: Any, *, strict: bool = False) -> str:
    """Returns a path without links, as Windows does, which resolves the case of names as well."""
    drives, real = posixpath.abspath(""), posixpath.realpath(_here(path), strict=strict)
    return real.removeprefix(f"{drives}/").replace("/", "\\")


def _take_paths_of_windows() -> None:
    for name in TAKING_PATHS:
        setattr(os, name, _opening(getattr(os, name)))
    builtins.open = io.open = _opening(io.open)
    ntpath.realpath = _realpath
    os.sep, os.altsep, os.pathsep, os.path, os.name = "\\", "/", ";", ntpath, "nt"
    sys.modules["os.path"] = ntpath
    flavour = getattr(pathlib, "_WindowsFlavour", None)
    if flavour is not None:
        flavour.is_supported = True
    elif "__new__" in vars(pathlib.WindowsPath):
        # Python 3.12 and later.
        del pathlib.WindowsPath.__new__


def become_windows() -> None:
    for name in FOREIGN:
        import_module(name)
    # Otherwise `platformdirs` calls a library of Windows.
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
    sys.platform = "win32"
    _take_paths_of_windows()


def main() -> int:
    become_windows()
    module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    return import_module(module).main(arguments)


if __name__ == "__main__":
    sys.exit(main())
