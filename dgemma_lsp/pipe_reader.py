"""What an editor writes into a pipe, read by the event loop itself.

pygls reads standard input in a thread, four times for each message, and waits for its turn each time: a key that comes
while the loop is at work is late by as many turns. Where standard input is no pipe, or shares one with standard output
(which would be told not to wait either), pygls reads it.
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from typing import BinaryIO

# Header lines are short; bodies may be of any length.
_MOST_HEADER_BYTES = 2**16
_NO_HEADER = b"-\r\n"


class PipeReader:
    """Reads messages as `pygls.io_.run_async` asks for them; the end of the pipe is an empty answer.

    Args:
        pipe: is read from the first await on, and must not be read by anybody else.
    """

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe
        self._stream: asyncio.StreamReader | None = None

    async def readline(self) -> bytes:
        """Returns a header line, or what is left at the end of the pipe; of a line that is too long, no header."""
        # What has come is returned at once: work on the message before this one would not begin until all is read.
        await asyncio.sleep(0)
        try:
            return await (await self._opened()).readline()
        except ValueError:  # The rest of a body behind a wrong length, perhaps: no header, and no end of headers.
            return _NO_HEADER

    async def readexactly(self, n: int) -> bytes:
        """Returns the next `n` bytes; nothing if the pipe ends before that."""
        try:
            return await (await self._opened()).readexactly(n)
        except asyncio.IncompleteReadError:
            return b""

    async def _opened(self) -> asyncio.StreamReader:
        if self._stream is None:
            self._stream = asyncio.StreamReader(limit=_MOST_HEADER_BYTES)
            protocol = asyncio.StreamReaderProtocol(self._stream)
            await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, self._pipe)
        return self._stream


def can_be_read(stdin: BinaryIO, stdout: BinaryIO) -> bool:
    """Returns whether `stdin` is something that a `PipeReader` can read without harm to `stdout`."""
    if sys.platform == "win32":
        return False
    try:
        incoming, outgoing = os.fstat(stdin.fileno()), os.fstat(stdout.fileno())
    except (OSError, ValueError):
        return False
    is_pipe = stat.S_ISFIFO(incoming.st_mode) or stat.S_ISSOCK(incoming.st_mode)
    return is_pipe and (incoming.st_dev, incoming.st_ino) != (outgoing.st_dev, outgoing.st_ino)
