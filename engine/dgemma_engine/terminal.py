"""Runs the commands of both programs: usable standard streams, and environment faults as one line and an exit code.

Standard library only; contains no command and no message of a command.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT."""


def run_program(name: str, command: Callable[[], int]) -> int:
    """Runs a command with usable standard streams and returns its exit code.

    A closed pipe on standard output (`| head`) ends the command silently with exit code 1. Standard output that cannot
    be written (closed, disk full) and any other `OSError` is one line on standard error and exit code 1; a current
    folder that was removed is exit code 2.

    Args:
        name: of the program, for messages.
        command: does the work; prints to `sys.stdout`.

    Raises:
        SystemExit: `argparse` ended the program; its output has been flushed.
    """
    open_standard_streams()
    try:
        code = command()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OSError as error:
        code = _report(name, error)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        raise SystemExit(_flushed(name, code)) from None
    return _flushed(name, code)


def open_standard_streams() -> None:
    """Occupies the descriptors of closed standard streams, and escapes characters that an encoding cannot express.

    Without this, the next opened file or socket gets descriptor 0, 1 or 2. Writing to a standard output that was closed
    fails with EBADF, as it does in other programs; a closed standard error discards messages. `sys.stdin` stays None
    when standard input was closed.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free descriptor is `number`: lower ones are open by now.
            os.open(os.devnull, flags)
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison] # None where descriptor 1 was closed.
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def say_error(name: str, message: str) -> None:
    """Prints `name: message` as one line on standard error, if that can be written."""
    try:
        sys.stderr.write(f"{name}: {' '.join(message.split())}\n")
        sys.stderr.flush()
    except OSError:
        pass


def visible(text: str) -> str:
    r"""Returns a text on one line, with escapes such as `\n` for characters that a terminal hides or acts on."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def write_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows of cells as lines of aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def _report(name: str, error: OSError) -> int:
    if isinstance(error, BrokenPipeError):
        _discard_output()
        return 1
    if error.filename is not None:
        say_error(name, f"{_printable(error.filename)}: {error.strerror or error}")
        return 1
    if not _has_current_folder():
        say_error(name, "the current folder was removed; change to one that exists")
        return 2
    if error.errno in (errno.EBADF, errno.EIO, errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        say_error(name, f"standard output cannot be written ({error.strerror}); redirect it elsewhere")
        _discard_output()
    else:
        say_error(name, str(error.strerror or error))
    return 1


def _flushed(name: str, code: int) -> int:
    try:
        sys.stdout.flush()
    except OSError as error:
        return _report(name, error)
    return code


def _discard_output() -> None:
    """Sends buffered output nowhere: flushing it at exit would fail again, with a traceback."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass


def _printable(name: object) -> str:
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else str(name)


def _has_current_folder() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True
