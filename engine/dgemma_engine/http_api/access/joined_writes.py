"""A transport that joins writes of one step of the event loop: a small answer wakes its reader once."""

from __future__ import annotations

import asyncio
from typing import Any


class JoinedWrites:
    """A transport whose `write` waits for the end of the current step of the event loop.

    Args:
        transport: sends.
        loop: its event loop.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Sends the data with what else is written before other tasks run."""
        if data:
            if not self._pieces:
                self._loop.call_soon(self._send)
            self._pieces.append(data)

    def close(self) -> None:
        """Sends what was written and closes the connection."""
        self._send()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        """Returns an attribute of the transport."""
        return getattr(self._transport, name)

    def _send(self) -> None:
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._transport.write(data)
