"""Settings -> a connection to an engine on another machine: certificates, key, and its first status."""

from __future__ import annotations

import time
from collections.abc import Callable

from dgemma_engine.errors import OutOfReach
from dgemma_engine.protocol.status_messages import Progress
from dgemma_engine.remote.back_off import BackOff
from dgemma_engine.remote.http_channel import HttpChannel
from dgemma_engine.remote.loading_watch import LoadingWatch
from dgemma_engine.remote.network_time import NetworkTime
from dgemma_engine.remote.remote_engine import RemoteEngine
from dgemma_engine.remote.remote_location import RemoteLocation


async def connect_remote(
    location: RemoteLocation,
    *,
    on_progress: Callable[[Progress], None],
    on_closed: Callable[[OutOfReach], None],
    back_off: BackOff | None = None,
) -> RemoteEngine:
    """Connects to an engine elsewhere; it may still be loading.

    Args:
        location: where it is.
        on_progress: receives its progress whenever it changes, first before this returns.
        on_closed: receives why it cannot be asked any more, where no question reports that.
        back_off: how long the machine is left alone, from earlier connections to it; None is a first connection.

    Raises:
        OutOfReach: it cannot be asked; the message is one sentence for the status.
        EngineFault: it answers nothing.
    """
    channel, network = HttpChannel(location), NetworkTime()
    back_off = back_off or BackOff(time.monotonic)
    watch = LoadingWatch(channel, network, back_off, on_progress=on_progress, on_lost=on_closed)
    try:
        await watch.start()
    except BaseException:
        await channel.close()
        raise
    return RemoteEngine(channel, watch, network, back_off)
