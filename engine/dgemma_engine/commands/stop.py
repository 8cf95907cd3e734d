"""`dgemma-engine stop`: asks engines to end and waits until their processes are gone."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from contextlib import suppress

from dgemma_engine.commands.engine_names import none_selected, several_selected
from dgemma_engine.errors import EngineError, EngineUnavailable, SocketRefused, WrongUsage
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.lock_file import holder_pid
from dgemma_engine.ipc.running_engines import RunningEngine, add_selection, selected_engines

_PATIENCE_S = 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    add_selection(parser)
    parser.add_argument("--all", action="store_true", help="end every engine of yours that the options select")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        WrongUsage: several engines run, and neither one is named nor are all; or no model has the name.
        EngineError: an engine does not end; the others were ended.
    """
    engines = selected_engines(arguments, os.environ)
    if not engines:
        sys.stdout.write(f"{none_selected(arguments, os.environ)}\n")
        return 0
    if len(engines) > 1 and not arguments.all:
        raise WrongUsage(several_selected(engines))
    faults: list[str] = []
    for engine in engines:
        try:
            asyncio.run(_stop(engine))
        except EngineError as error:
            faults.append(str(error))
        else:
            sys.stdout.write(f"engine stopped (pid {engine.pid})\n")
    if faults:
        raise EngineUnavailable("; ".join(faults))
    return 0


async def _stop(engine: RunningEngine) -> None:
    location, pid = engine.location, engine.pid
    try:
        async with asyncio.timeout(_PATIENCE_S), await EngineClient.attach_any(location) as client:
            await client.stop_engine()
    except SocketRefused:
        raise
    except (EngineError, TimeoutError):
        # It holds the lock, so its process lives, without answering. A stopped process takes SIGTERM once it continues.
        for number in (signal.SIGTERM, signal.SIGCONT):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
    loop = asyncio.get_running_loop()
    give_up_s = loop.time() + _PATIENCE_S
    while holder_pid(location.lock) == pid:
        if loop.time() > give_up_s:
            raise EngineUnavailable(f"engine {pid} did not end within {_PATIENCE_S:g} s; end it with: kill -9 {pid}")
        await asyncio.sleep(0.05)
