"""`dgemma-engine status`: prints the state of each engine that runs; exit code 3 when none does."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dgemma_engine.commands.engine_names import none_selected, start_advice
from dgemma_engine.errors import EngineError, EngineSilent, EngineUnavailable, NoEngine, SocketRefused
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.running_engines import RunningEngine, add_selection, default_location, selected_engines
from dgemma_engine.model_store.catalogue import OLD_NAMES
from dgemma_engine.protocol.status_messages import Status
from dgemma_engine.terminal import write_table

STOPPED = 3
"""Exit code when no engine runs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    add_selection(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object for each engine, one a line")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        WrongUsage: no model has the name.
        EngineError: the only engine answered with an error, or runs and cannot be reached.
    """
    engines = selected_engines(arguments, os.environ)
    default = default_location(arguments, os.environ)
    if len(engines) > 1:
        # Scripts read the last line: the engine that editors use by default comes last.
        engines.sort(key=lambda engine: engine.location.lock == default.lock)
        return asyncio.run(_several(engines, as_json=arguments.json))
    try:
        status = asyncio.run(_ask(engines[0].location if engines else default))
    except (SocketRefused, EngineSilent):
        raise
    except NoEngine:
        sentence = f"{none_selected(arguments, os.environ)}; {start_advice(arguments, os.environ)}"
        return _stopped(sentence, as_json=arguments.json)
    except EngineUnavailable as error:
        return _stopped(str(error), as_json=arguments.json)
    sys.stdout.write(json.dumps(status.to_wire()) + "\n" if arguments.json else table(status))
    return 0


def _stopped(sentence: str, *, as_json: bool) -> int:
    sys.stdout.write(json.dumps({"state": "stopped"}) + "\n" if as_json else f"{sentence}\n")
    return STOPPED


async def _several(engines: Sequence[RunningEngine], *, as_json: bool) -> int:
    """Prints one line for each engine; returns 1 where one does not answer, else 0."""
    rows: list[tuple[str, ...]] = [("MODEL", "DEVICE", "STATE", "MEMORY HELD", "PID", "MORE")]
    lines: list[dict[str, Any]] = []
    silent = False
    for engine in engines:
        try:
            status = await _ask(engine.location)
        except EngineError as error:
            silent = True
            location = engine.location
            lines.append({"state": "unreachable", "message": str(error), "model": location.model, "pid": engine.pid})
            rows.append((location.model or "?", location.device, "unreachable", "?", str(engine.pid), str(error)))
            continue
        named = engine.named(status)
        more = f"dgemma-engine status{named.location.options}" if named.location.model else status.message
        lines.append(status.to_wire())
        rows.append((_model(status), status.device, _state(status), _held(status), str(status.pid), more))
    if as_json:
        sys.stdout.writelines(json.dumps(line) + "\n" for line in lines)
    else:
        write_table(rows)
    return int(silent)


async def _ask(location: EngineLocation) -> Status:
    async with await EngineClient.attach_any(location) as client:
        status = await client.status()
    try:
        client.hello.verify()
    except EngineUnavailable as error:
        return replace(status, message=str(error))
    return status


def table(status: Status) -> str:
    """Returns the status as lines of aligned columns for a person."""
    rows = [
        ("state", _state(status)),
        ("message", status.message),
        ("model", _model(status)),
        # While the model loads, both are what the user named.
        ("model path", status.model_path if status.model_path != status.model else ""),
        ("device", status.device),
        ("number format", status.number_format),
        ("uncompiled", status.uncompiled_reason),
        *(("adapter", f"{root} ({fault})" if fault else root) for root, fault in status.adapters.items()),
        ("memory held", _mebibytes(status.memory_bytes)),
        ("device memory", _mebibytes(status.device_memory_bytes) if status.device_memory_bytes else ""),
        ("uptime", _duration(status.uptime_s)),
        ("pid", str(status.pid)),
        ("version", status.version),
        ("clients", str(status.clients)),
        ("requests", _counts(status.requests)),
        ("steps", str(status.denoising_steps)),
    ]
    lines = [f"{name:<14}{value}" for name, value in rows if value]
    if status.stages:
        lines.append(f"\n{'stage':<14}{'count':>7}{'p50 ms':>10}{'p95 ms':>10}")
        lines += [f"{name:<14}{t.count:>7}{t.p50_ms:>10.1f}{t.p95_ms:>10.1f}" for name, t in status.stages.items()]
    return "\n".join(lines) + "\n"


def _model(status: Status) -> str:
    return OLD_NAMES.get(status.model, status.model)


def _state(status: Status) -> str:
    return f"{status.state} {status.percent}%" if status.state == "loading" else str(status.state)


def _held(status: Status) -> str:
    held = _mebibytes(status.memory_bytes)
    return f"{held} + {_mebibytes(status.device_memory_bytes)}" if status.device_memory_bytes else held


def _counts(requests: dict[str, int]) -> str:
    seen = ", ".join(f"{count} {name}" for name, count in requests.items() if count)
    return f"{sum(requests.values())} ({seen})" if seen else "0"


def _mebibytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.0f} MiB"


def _duration(elapsed_s: float) -> str:
    hours, seconds = divmod(round(elapsed_s), 3_600)
    minutes, seconds = divmod(seconds, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
