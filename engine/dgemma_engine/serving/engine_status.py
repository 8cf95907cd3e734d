"""The status of a device thread as the message that clients and operators read."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil

from dgemma_engine import __version__
from dgemma_engine.protocol.status_messages import Status
from dgemma_engine.serving.device_thread import DeviceThread


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The requested model and device, which a status names until the model is loaded.

    Attributes:
        model: name, folder or file.
        device: as on the command line.
    """

    model: str
    device: str


def engine_status(thread: DeviceThread, chosen: Chosen, *, uptime_s: float, num_clients: int) -> Status:
    """Returns the status of this process.

    Args:
        thread: owns the device.
        chosen: model and device.
        uptime_s: seconds since the start.
        num_clients: connections.
    """
    engine, progress = thread.engine, thread.progress
    return Status(
        state=thread.state,
        percent=progress.percent,
        message=progress.message or (engine.notice if engine else ""),
        model=engine.model_name if engine else chosen.model,
        model_path=engine.model_path if engine else chosen.model,
        device=engine.device if engine else chosen.device,
        pid=os.getpid(),
        version=__version__,
        uptime_s=uptime_s,
        memory_bytes=psutil.Process().memory_info().rss,
        device_memory_bytes=engine.device_memory_bytes if engine else 0,
        clients=num_clients,
        requests=thread.requests(),
        denoising_steps=thread.denoising_steps,
        stages=thread.stages(),
        number_format=engine.number_format if engine else "",
        compiled=engine.compiled if engine else False,
        uncompiled_reason=engine.uncompiled_reason if engine else "",
        adapters=engine.adapters if engine else {},
    )
