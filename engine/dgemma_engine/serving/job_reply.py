"""A job of the device thread on the way back to an event loop: its drafts, and its answer no later than it is due.

Of the drafts the newest is sent once the one before has left. Of those that come meanwhile only the newest is kept, so
that a client that reads slowly costs no memory.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from dgemma_engine.ipc.json_rpc import Peer
from dgemma_engine.protocol.messages import DRAFT, Draft, Infill
from dgemma_engine.serving.device_thread import DeviceThread
from dgemma_engine.serving.scheduler import Job

# What a request that runs may take past its deadline, to end its step and hand in the best it has.
_LAST_STEP_S = 0.02


async def answer_of(job: Job, device: DeviceThread) -> Infill:
    """Waits for an answer, at most until it is due; withdraws the request when the caller is cancelled.

    Args:
        job: as `device.submit` returned it.
        device: works on it.

    Raises:
        EngineFault: the request failed.
    """
    loop, deadline_s = asyncio.get_running_loop(), job.context.deadline_ms / 1_000
    timers = [
        loop.call_later(deadline_s, device.expire, job),
        loop.call_later(deadline_s + _LAST_STEP_S, device.overdue, job),
    ]
    try:
        return await asyncio.wrap_future(job.answer)
    except asyncio.CancelledError:
        device.withdraw(job)
        raise
    finally:
        for timer in timers:
            timer.cancel()


@dataclass(slots=True, eq=False)
class DraftSender:
    """Sends drafts until it is closed. Belongs to the running event loop.

    Attributes:
        peer: the client.
        writer: the stream under `peer`.
    """

    peer: Peer
    writer: asyncio.StreamWriter
    _loop: asyncio.AbstractEventLoop = field(init=False, default_factory=asyncio.get_running_loop)
    _newest: Draft | None = field(init=False, default=None)
    _sending: asyncio.Task[None] | None = field(init=False, default=None)
    _is_closed: bool = field(init=False, default=False)

    def send_from_thread(self, draft: Draft) -> None:
        """Sends a draft, unless a newer one comes before that is possible; for any other thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._offer, draft)

    def close(self) -> None:
        """Drops what has not been sent, and all that comes."""
        self._is_closed = True
        if self._sending is not None:
            self._sending.cancel()

    def _offer(self, draft: Draft) -> None:
        self._newest = draft
        if self._sending is None and not self._is_closed:
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        with suppress(OSError):
            while self._newest is not None:
                await self.writer.drain()
                draft, self._newest = self._newest, None
                self.peer.notify(DRAFT, draft.to_wire())
        self._sending = None
