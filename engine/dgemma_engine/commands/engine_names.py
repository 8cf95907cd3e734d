"""Options that select no engine, or several: the sentences that name the engines that run, and how to select one.

An engine of a folder or file is asked for the model's name: only its process has it.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence

from dgemma_engine.checkpoint.builtin import require_place
from dgemma_engine.errors import EngineError
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.running_engines import STOP_ALL, RunningEngine, default_location, running_engines

_ASK_PATIENCE_S = 2.0


def none_selected(arguments: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """Returns the sentence for options of `add_selection` that no running engine has.

    Raises:
        WrongUsage: the options name a model that does not exist.
        SocketRefused: the directory of the locks cannot be used.
    """
    if arguments.model is None and arguments.device is None:
        return "no engine is running"
    if arguments.model is not None:
        require_place(arguments.model)
    wanted = default_location(arguments, environ)
    device = "" if arguments.device is None else f" for the device {wanted.device}"
    others = asyncio.run(_named(running_engines(environ)))
    running = f"; running: {', '.join(map(_short, others))}" if others else ""
    return f"no engine of {wanted.model}{device} is running{running}"


def start_advice(arguments: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """Returns how to start the engine that the options of `add_selection` name, or that of the default model."""
    if arguments.model is None and arguments.device is None:
        return "start one with: dgemma-engine start"
    return f"start one with: {default_location(arguments, environ).start_command}"


def several_selected(engines: Sequence[RunningEngine]) -> str:
    """Returns which engines run and the command that ends each."""
    named = asyncio.run(_named(engines))
    commands = "; or ".join(dict.fromkeys([*(engine.stop_command for engine in named), STOP_ALL]))
    return f"{len(named)} engines run: {', '.join(map(str, named))}; run: {commands}"


async def _named(engines: Sequence[RunningEngine]) -> list[RunningEngine]:
    return [await _with_name(engine) for engine in engines]


async def _with_name(engine: RunningEngine) -> RunningEngine:
    if engine.location.model:
        return engine
    try:
        async with (
            asyncio.timeout(_ASK_PATIENCE_S),
            await EngineClient.attach_any(engine.location, timeout_s=_ASK_PATIENCE_S) as client,
        ):
            return engine.named(await client.status())
    except (EngineError, TimeoutError):
        return engine


def _short(engine: RunningEngine) -> str:
    """Returns the model that runs, and the device where one was chosen; the process where the model is unknown."""
    location = engine.location
    if not location.model:
        return str(engine)
    return location.model if location.device == "auto" else f"{location.model} (--device {location.device})"
