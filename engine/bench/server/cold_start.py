"""Cold start to the first answer: no engine runs; a language server is started, a file opened, ghost text asked for.

The time ends when the engine, started on demand, has sent its first answer to the server, as its own count shows. The
processes are new; the files are in the page cache from the second round on.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.errors import EngineUnavailable
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.model_store.catalogue import TINY
from dgemma_engine.protocol.status_messages import Status
from editor import editing
from lsprotocol import types

TEXT = "import os\n\n\ndef home():\n    return os.path.\n"
CURSOR = types.Position(line=4, character=19)


async def first_answer_s(model: str) -> tuple[float, Status]:
    """Returns the seconds from starting the server to the first answer, and the engine's status then.

    Args:
        model: `engine.model`.
    """
    with tempfile.TemporaryDirectory(prefix="dgemma-") as runtime:
        location = EngineLocation.locate({"DGEMMA_RUNTIME_DIR": runtime}, model=model)
        started = time.perf_counter()
        async with editing({"deadlineMs": 10_000, "engine": {"model": model}}, runtime) as editor:
            editor.open(TEXT)
            status: Status | None = None
            while status is None or not sum(status.requests.values()):
                await editor.ask(CURSOR)
                status = await _status(location)
                await asyncio.sleep(0.02)
            elapsed_s = time.perf_counter() - started
        async with await EngineClient.attach(location) as client:
            await client.stop_engine()
        await asyncio.sleep(0.5)
    return elapsed_s, status


async def _status(location: EngineLocation) -> Status | None:
    try:
        async with await EngineClient.attach(location) as client:
            return await client.status()
    except EngineUnavailable:
        return None


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", choices=("tiny", "small", "coder"), default="small", help="default: small")
    args = parser.parse_args()
    # The servers have a home of their own, where no model was fetched.
    model = TINY if args.model == TINY else str(model_folder(args.model))
    measured = [asyncio.run(first_answer_s(model)) for _ in range(args.rounds)]
    seconds = [elapsed_s for elapsed_s, _status in measured]
    status = measured[-1][1]
    result = {
        "rounds": args.rounds,
        "median_s": round(statistics.median(seconds), 2),
        "slowest_s": round(max(seconds), 2),
        "target_s": 4,
        "model": args.model,
        "device": status.device,
        "engine_memory_mib": round(status.memory_bytes / 2**20),
    }
    name = "cold_start" if args.model == "small" else f"cold_start_{args.model}"
    record.write(name, result, args.out)


if __name__ == "__main__":
    main()
