"""`dgemma-engine start`: runs the engine in the background, or with `--foreground` in this process."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dgemma_engine.client import EngineClient
from dgemma_engine.commands.chosen_engine import add_engine_options, chosen_location
from dgemma_engine.errors import EngineUnavailable
from dgemma_engine.location import EngineLocation
from dgemma_engine.messages import EngineState
from dgemma_engine.model_folder import model_folder

if TYPE_CHECKING:
    from dgemma_engine.worker import InfillEngine

IDLE_MINUTES = 30.0


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand to argparse's subparsers."""
    parser = subparsers.add_parser("start", help="start the engine unless it runs", description=__doc__)
    add_engine_options(parser)
    parser.add_argument("--foreground", action="store_true", help="run in this process, logging to standard error")
    parser.add_argument(
        "--idle-minutes",
        type=_minutes,
        default=IDLE_MINUTES,
        metavar="N",
        help=f"end after N minutes without a client; 0 is never (default: {IDLE_MINUTES:g})",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        EngineError: the engine cannot be started.
    """
    location = chosen_location(arguments)
    if arguments.foreground:
        return _run_foreground(location, idle_minutes=arguments.idle_minutes)
    return asyncio.run(_run_background(location, idle_minutes=arguments.idle_minutes))


def _run_foreground(location: EngineLocation, *, idle_minutes: float) -> int:
    for module in ("torch", "psutil"):
        if importlib.util.find_spec(module) is None:
            raise EngineUnavailable(f"{module} is not installed; run: pip install 'dgemma-lsp[engine]'")
    from dgemma_engine import daemon

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    other_pid = daemon.run(location, load=_loader(location), idle_s=idle_minutes * 60 or None)
    if other_pid is not None:
        _say(f"an engine already runs (pid {other_pid})")
    return 0


async def _run_background(location: EngineLocation, *, idle_minutes: float) -> int:
    try:
        client = await EngineClient.attach(location)
        before = "an engine already runs"
    except EngineUnavailable:
        client = await EngineClient.attach_or_start(location, idle_minutes=idle_minutes)
        before = "engine started"
    async with client:
        status = await client.status()
    after = ", loading; `dgemma-engine status` says when it is ready" if status.state is EngineState.LOADING else ""
    if status.state is EngineState.FAILED:
        raise EngineUnavailable(status.message)
    _say(f"{before} (pid {status.pid}): {status.model} on {status.device}{after}")
    return 0


def _loader(location: EngineLocation) -> Callable[[Callable[[int, str], None]], InfillEngine]:
    def load(report: Callable[[int, str], None]) -> InfillEngine:
        # Imported on the device thread: torch takes seconds, and clients are answered meanwhile.
        from dgemma_engine.engine import Engine

        return Engine.load(model_folder(location.model), device=location.device, report=report)

    return load


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 <= minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be 0 or more minutes")
    return minutes


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
