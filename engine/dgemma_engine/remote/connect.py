"""Settings -> a connection to an engine on another machine: certificates, key, and a first look at how far it is."""

from __future__ import annotations

from collections.abc import Callable

from dgemma_engine.protocol.messages import Progress
from dgemma_engine.remote.http_channel import HttpChannel
from dgemma_engine.remote.loading_watch import LoadingWatch
from dgemma_engine.remote.network_time import NetworkTime
from dgemma_engine.remote.remote_engine import RemoteEngine
from dgemma_engine.remote.remote_location import RemoteLocation


async def connect_remote(
    location: RemoteLocation, *, on_progress: Callable[[Progress], None], on_closed: Callable[[], None]
) -> RemoteEngine:
    """Connects to an engine elsewhere; it may still be loading.

    Args:
        location: where it is.
        on_progress: receives its progress whenever it changes, first before this returns.
        on_closed: called when it cannot be asked any more while it loads.

    Raises:
        OutOfReach: it cannot be asked; the message is one sentence for the status.
        EngineFault: it answers nothing.
    """
    channel, network = HttpChannel(location), NetworkTime()
    watch = LoadingWatch(channel, network, on_progress=on_progress, on_lost=on_closed)
    try:
        await watch.start()
    except BaseException:
        await channel.close()
        raise
    return RemoteEngine(channel, watch, network)
