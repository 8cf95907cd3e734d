"""`dgemma-engine status`: prints the state of the engine; exit code 3 when no engine is running."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import replace

from dgemma_engine.errors import EngineSilent, EngineUnavailable, SocketRefused
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.endpoint_options import add_engine_options, chosen_location
from dgemma_engine.model_store.catalogue import OLD_NAMES
from dgemma_engine.protocol.status_messages import Status

STOPPED = 3
"""Exit code when no engine runs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    add_engine_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        EngineError: the engine answered with an error, or runs and cannot be reached.
    """
    try:
        status = asyncio.run(_ask(chosen_location(arguments)))
    except (SocketRefused, EngineSilent):
        raise
    except EngineUnavailable as error:
        sys.stdout.write(json.dumps({"state": "stopped"}) + "\n" if arguments.json else f"{error}\n")
        return STOPPED
    sys.stdout.write(json.dumps(status.to_wire()) + "\n" if arguments.json else table(status))
    return 0


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
        ("state", f"{status.state} {status.percent}%" if status.state == "loading" else str(status.state)),
        ("message", status.message),
        ("model", OLD_NAMES.get(status.model, status.model)),
        ("model path", status.model_path),
        ("device", status.device),
        ("number format", status.number_format),
        ("uncompiled", status.uncompiled_reason),
        *(("adapter", f"{root} ({fault})" if fault else root) for root, fault in status.adapters.items()),
        ("memory", _mebibytes(status.memory_bytes)),
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


def _counts(requests: dict[str, int]) -> str:
    seen = ", ".join(f"{count} {name}" for name, count in requests.items() if count)
    return f"{sum(requests.values())} ({seen})" if seen else "0"


def _mebibytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.0f} MiB"


def _duration(elapsed_s: float) -> str:
    hours, seconds = divmod(round(elapsed_s), 3_600)
    minutes, seconds = divmod(seconds, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
