"""One client's connection: its messages become jobs of the device thread, and these their drafts and answers.

Of the drafts the newest is sent once the one before has left. Of those that come meanwhile only the newest is kept, so
that a client that reads slowly costs no memory. An answer is sent no later than it is due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pygls.exceptions import JsonRpcInvalidParams

from dgemma_engine.ipc.json_rpc import Handler, Peer
from dgemma_engine.protocol.messages import DRAFT, INFILL, Context, Draft, Infill
from dgemma_engine.protocol.trace_messages import TRACE
from dgemma_engine.serving.device_thread import DeviceThread
from dgemma_engine.serving.scheduler import Job
from dgemma_engine.tracing.recorder import Recorder

# What a request that runs may take past its deadline, to end its step and hand in the best it has.
_LAST_STEP_S = 0.02


class ClientConnection:
    """Belongs to the running event loop.

    Args:
        owner: number of the connection.
        device: answers the requests.
        reader: of the open socket.
        writer: of the same.
        requests: handlers of the requests that need no device, by method.

    Attributes:
        peer: reads the messages.
    """

    def __init__(
        self,
        owner: int,
        device: DeviceThread,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        requests: Mapping[str, Handler],
    ) -> None:
        self._owner, self._device, self._writer = owner, device, writer
        self.peer = Peer(reader, writer, requests={INFILL: self._infill, TRACE: self._trace, **requests})

    async def _infill(self, params: Any) -> dict[str, Any]:
        context = self._read_context(params)
        drafts = _DraftSender(self.peer, self._writer) if context.drafts else None
        job = self._device.submit(self._owner, context, None if drafts is None else drafts.send_from_thread)
        try:
            return (await answer_of(job, self._device)).to_wire()
        finally:
            if drafts is not None:
                drafts.sending.cancel()

    async def _trace(self, params: Any) -> dict[str, Any]:
        recorder = Recorder(time.monotonic)
        job = self._device.submit(self._owner, self._read_context(params), recorder=recorder)
        return recorder.trace(await answer_of(job, self._device)).to_wire()

    def _read_context(self, params: Any) -> Context:
        """Reads a request; its document's name gets the owner's number: two windows differ in what was typed."""
        try:
            context = Context.from_wire(params)
        except ValueError as error:
            raise JsonRpcInvalidParams(" ".join(str(error).split())) from None
        return replace(context, document=f"{self._owner}/{context.document}")


class _DraftSender:
    """Sends the drafts of one request.

    Args:
        peer: the client.
        writer: the stream under `peer`.

    Attributes:
        sending: sends until it is cancelled, which drops what was not sent.
    """

    def __init__(self, peer: Peer, writer: asyncio.StreamWriter) -> None:
        self._peer, self._writer = peer, writer
        self._newest: Draft | None = None
        self._came = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.sending = asyncio.create_task(self._send())

    def send_from_thread(self, draft: Draft) -> None:
        """Sends a draft, unless a newer one comes before that is possible; for any other thread."""
        self._newest = draft
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._came.set)

    async def _send(self) -> None:
        with suppress(OSError):
            while await self._came.wait():
                self._came.clear()
                await self._writer.drain()
                draft, self._newest = self._newest, None
                if draft is not None:
                    self._peer.notify(DRAFT, draft.to_wire())


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
