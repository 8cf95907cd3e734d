"""What is written in one step of the event loop is sent as one piece, and nothing of it is lost at the end."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from dgemma_engine.http_api.access.joined_writes import JoinedWrites


class FakeTransport:
    """Records writes and closing."""

    def __init__(self) -> None:
        self.done: list[object] = []

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def close(self) -> None:
        self.done.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.done


def joined() -> tuple[FakeTransport, JoinedWrites]:
    transport = FakeTransport()
    return transport, JoinedWrites(cast("Any", transport), asyncio.get_running_loop())


async def test_pieces_of_one_step_are_sent_together_and_those_of_the_next_after_them() -> None:
    transport, writer = joined()
    writer.write(b"head ")
    writer.write(b"")
    writer.write(b"body")
    assert transport.done == []
    await asyncio.sleep(0)
    writer.write(b"event")
    await asyncio.sleep(0)
    assert transport.done == [b"head body", b"event"]


async def test_closing_sends_what_was_written() -> None:
    transport, writer = joined()
    writer.write(b"answer")
    writer.close()
    assert writer.is_closing()
    await asyncio.sleep(0)
    assert transport.done == [b"answer", "closed"]
