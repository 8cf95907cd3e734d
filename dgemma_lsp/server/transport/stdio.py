"""Standard input as a stream of the event loop, and standard output as a writer for pygls.

pygls reads standard input in a thread, four times for each message, and waits for the loop each time: a key that comes
while the loop is busy is late by as many turns. Here the loop reads a pipe itself. A thread reads anything else, and a
pipe shared with standard output (which would become non-blocking too); the process ends without waiting for it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

_CHUNK_BYTES = 2**16


async def open_input(stdin: BinaryIO, stdout: BinaryIO) -> asyncio.StreamReader:
    """Returns standard input as a stream; nothing else may read `stdin`.

    Args:
        stdin: anything with a file descriptor.
        stdout: where answers are written.
    """
    stream, loop = asyncio.StreamReader(limit=_CHUNK_BYTES), asyncio.get_running_loop()
    if can_be_read(stdin, stdout):
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), stdin)
    else:
        threading.Thread(target=_feed, args=(stdin.fileno(), stream, loop), daemon=True).start()
    return stream


def can_be_read(stdin: BinaryIO, stdout: BinaryIO) -> bool:
    """Returns whether `stdin` is something that the event loop can read without harm to `stdout`."""
    if sys.platform == "win32":
        return False
    try:
        incoming, outgoing = os.fstat(stdin.fileno()), os.fstat(stdout.fileno())
    except (OSError, ValueError):
        return False
    is_pipe = stat.S_ISFIFO(incoming.st_mode) or stat.S_ISSOCK(incoming.st_mode)
    return is_pipe and (incoming.st_dev, incoming.st_ino) != (outgoing.st_dev, outgoing.st_ino)


class StdoutWriter:
    """Writes whole messages.

    Args:
        stdout: where to write; flushed after each message.
        on_gone: called when it has no reader any more; later messages are dropped.
    """

    def __init__(self, stdout: BinaryIO, on_gone: Callable[[], None]) -> None:
        self._stdout = stdout
        self._on_gone = on_gone

    def write(self, data: bytes) -> None:
        """Writes a message; waits while its reader does not read."""
        try:
            self._stdout.write(data)
            self._stdout.flush()
        except OSError as error:
            # Windows has no error of its own for a pipe without a reader.
            if not isinstance(error, ConnectionError) and error.errno != errno.EINVAL:
                raise
            # The rest of the message would be written when the process ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stdout.fileno())
            self._on_gone()

    def close(self) -> None:
        """Does nothing: the process closes its output."""


def _feed(descriptor: int, stream: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
    # The loop may be closed by now.
    with suppress(RuntimeError):
        with suppress(OSError):
            while data := os.read(descriptor, _CHUNK_BYTES):
                loop.call_soon_threadsafe(stream.feed_data, data)
        loop.call_soon_threadsafe(stream.feed_eof)
