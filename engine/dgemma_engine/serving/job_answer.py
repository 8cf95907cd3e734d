"""A job of the device thread -> its answer on an event loop, no later than it is due."""

from __future__ import annotations

import asyncio

from dgemma_engine.protocol.messages import Infill
from dgemma_engine.serving.device_thread import DeviceThread
from dgemma_engine.serving.scheduler import Job

# Time that a running request may take past its deadline, to finish its step and return its best text.
_LAST_STEP_S = 0.02


async def answer_of(job: Job, device: DeviceThread) -> Infill:
    """Waits for an answer, at most until it is due; cancels the request when the caller is cancelled.

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
