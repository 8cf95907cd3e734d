"""`dgemma-engine start`: runs the engine in the background, or with `--foreground` in this process."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dgemma_engine.checkpoint.builtin import require_model
from dgemma_engine.errors import EngineUnavailable
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.endpoint_options import add_engine_options, chosen_location
from dgemma_engine.ipc.lock_file import holder_pid
from dgemma_engine.model_store.choice import choose_model
from dgemma_engine.protocol.status_messages import EngineState
from dgemma_engine.terminal import say_error

if TYPE_CHECKING:
    from dgemma_engine.serving.infill_engine import InfillEngine

IDLE_MINUTES = UNLOAD_MINUTES = 30.0
# The model `tiny` is loaded within 4 s on two cores; a large one reads its weights for minutes.
_FIRST_STATE_S = 15.0
_LONGEST_LOAD_S = 3_600.0
# From the loss of its connections to the end of an engine's process.
_END_S = 5.0
_LOCK_POLL_S = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    add_engine_options(parser)
    parser.add_argument("--foreground", action="store_true", help="run in this process, logging to standard error")
    parser.add_argument(
        "--idle-minutes",
        type=_minutes,
        default=IDLE_MINUTES,
        metavar="N",
        help=f"end after N minutes without a client; 0 is never (default: {IDLE_MINUTES:g})",
    )
    parser.add_argument(
        "--idle-unload-minutes",
        type=_minutes,
        default=UNLOAD_MINUTES,
        metavar="N",
        help="give a card's memory back after N minutes without a request, and load the model again with the next; "
        f"0 is never (default: {UNLOAD_MINUTES:g})",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        WrongUsage: the model is no folder with a model in it.
        EngineError: the engine cannot be started, or cannot load the model.
    """
    choice = choose_model(arguments.model, os.environ)
    require_model(choice.runs)
    if choice.is_stand_in:
        say_error("dgemma-engine", choice.notice)
    location = chosen_location(arguments)
    if arguments.foreground:
        return _run_foreground(location, arguments)
    return asyncio.run(_run_background(location, arguments))


def _run_foreground(location: EngineLocation, arguments: argparse.Namespace) -> int:
    for module in ("torch", "psutil"):
        if importlib.util.find_spec(module) is None:
            raise EngineUnavailable(f"{module} is not installed; run: pip install 'dgemma-lsp[engine]'")
    from dgemma_engine.serving import daemon

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    faults: list[str] = []
    other_pid = daemon.run(
        location,
        load=_loader(location, faults),
        idle_s=arguments.idle_minutes * 60 or None,
        unload_s=arguments.idle_unload_minutes * 60 or None,
    )
    if other_pid is not None:
        _say(f"an engine already runs (pid {other_pid})")
    if faults:
        raise EngineUnavailable(f"the model was not loaded: {faults[0]}")
    return 0


async def _run_background(location: EngineLocation, arguments: argparse.Namespace) -> int:
    try:
        client = await EngineClient.attach(location)
        before = "an engine already runs"
    except EngineUnavailable:
        client = await EngineClient.attach_or_start(
            location, idle_minutes=arguments.idle_minutes, unload_minutes=arguments.idle_unload_minutes
        )
        before = "engine started"
    async with client:
        status = await client.status()
        try:
            async with asyncio.timeout(_FIRST_STATE_S):
                status = await client.wait_ready(_LONGEST_LOAD_S)
        except TimeoutError:
            status = await client.status()
        except EngineUnavailable as error:
            if await asyncio.to_thread(_ended, location, status.pid):
                message = f"engine process {status.pid} ended while it loaded the model; see {location.log}"
                raise EngineUnavailable(message) from error
            raise
    still = f", still loading; check with: dgemma-engine status{location.options} (log: {location.log})"
    after = still if status.state is EngineState.LOADING else ""
    _say(f"{before} (pid {status.pid}): {status.model} on {status.device}{after}")
    return 0


def _ended(location: EngineLocation, pid: int) -> bool:
    """Waits for the end of an engine whose connection is lost: its sockets close before it drops the lock."""
    give_up_s = time.monotonic() + _END_S
    while holder_pid(location.lock) == pid and time.monotonic() < give_up_s:
        time.sleep(_LOCK_POLL_S)
    return holder_pid(location.lock) != pid


def _loader(location: EngineLocation, faults: list[str]) -> Callable[[Callable[[int, str], None]], InfillEngine]:
    """Returns the function that loads the engine; a failure is appended to `faults` as well."""

    def load(report: Callable[[int, str], None]) -> InfillEngine:
        # A growing prompt allocates a new size each time, for which freed blocks must be reusable. Read once, by torch.
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
        from dgemma_engine.serving.engine_loading import load_engine

        try:
            return load_engine(location.model, device=location.device, report=report)
        except Exception as error:
            faults.append(str(error) or type(error).__name__)
            raise

    return load


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = -1.0
    if not 0 <= minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be 0 or more minutes")
    return minutes


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
