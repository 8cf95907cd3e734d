"""`dgemma-engine stop`: asks the engine to end and waits until its process is gone."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from contextlib import suppress

from dgemma_engine.errors import EngineError, EngineUnavailable, SocketRefused
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.endpoint_options import add_engine_options, chosen_location
from dgemma_engine.ipc.lock_file import holder_pid

_PATIENCE_S = 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    add_engine_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        EngineError: the engine does not end.
    """
    location = chosen_location(arguments)
    location.verify()
    pid = holder_pid(location.lock)
    if pid is None:
        sys.stdout.write("no engine runs\n")
        return 0
    asyncio.run(_stop(location, pid))
    sys.stdout.write(f"engine stopped (pid {pid})\n")
    return 0


async def _stop(location: EngineLocation, pid: int) -> None:
    try:
        async with asyncio.timeout(_PATIENCE_S), await EngineClient.attach_any(location) as client:
            await client.stop_engine()
    except SocketRefused:
        raise
    except (EngineError, TimeoutError):
        # It holds the lock, so it lives, and it does not answer. A stopped process takes SIGTERM once it continues.
        for number in (signal.SIGTERM, signal.SIGCONT):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
    loop = asyncio.get_running_loop()
    give_up_s = loop.time() + _PATIENCE_S
    while holder_pid(location.lock) == pid:
        if loop.time() > give_up_s:
            raise EngineUnavailable(f"engine {pid} did not end within {_PATIENCE_S:g} s; end it with: kill -9 {pid}")
        await asyncio.sleep(0.05)
