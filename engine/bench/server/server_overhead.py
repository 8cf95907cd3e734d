"""What the language server and the socket add to a request: an engine that answers at once, a 2,000-line file.

Every round types one character and asks for ghost text by hand, since the server would wait for the end of such fast
keys. The time is the client's, from sending the edit to receiving the answer; it includes server, socket and JSON on
both sides, not the model.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import instant_engine
import record
from dgemma_engine.errors import EngineUnavailable
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.serving import daemon
from editor import editing
from lsprotocol import types

NUM_LINES = 2_000
INVOKED = types.InlineCompletionTriggerKind.Invoked


async def measure(rounds: int) -> list[float]:
    """Returns the milliseconds of each round."""
    with tempfile.TemporaryDirectory(prefix="dgemma-") as runtime:
        location = EngineLocation.locate({"DGEMMA_RUNTIME_DIR": runtime}, model=runtime)
        stop = asyncio.Event()
        serving = asyncio.create_task(daemon.serve(location, load=instant_engine.load, idle_s=None, stop=stop))
        await _answers(location)
        options = {"engine": {"model": runtime, "autostart": False}}
        times_ms: list[float] = []
        async with editing(options, runtime) as editor:
            text = "".join(f"value_{i} = compute(value_{i - 1}, {i})\n" for i in range(NUM_LINES))
            editor.open(text)
            line = NUM_LINES // 2
            editor.type(types.Position(line=line, character=0), "\n")
            while not await editor.ask(types.Position(line=line, character=0)):
                await asyncio.sleep(0.05)
            for column in range(rounds):
                started = time.perf_counter()
                editor.type(types.Position(line=line, character=column), "x")
                items = await editor.ask(types.Position(line=line, character=column + 1), INVOKED)
                times_ms.append((time.perf_counter() - started) * 1e3)
                assert len(items) == 1
        stop.set()
        await serving
    return times_ms


async def _answers(location: EngineLocation) -> None:
    while True:
        try:
            await (await EngineClient.attach(location)).close()
        except EngineUnavailable:
            await asyncio.sleep(0.02)
        else:
            return


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--rounds", type=int, default=300)
    args = parser.parse_args()
    os.environ.pop("DGEMMA_RUNTIME_DIR", None)
    times_ms = asyncio.run(measure(args.rounds))
    result = {
        "lines": NUM_LINES,
        "rounds": args.rounds,
        "median_ms": round(statistics.median(times_ms), 2),
        "p95_ms": round(record.quantile(times_ms, 0.95), 2),
        "target_median_ms": 5,
        "target_p95_ms": 15,
    }
    record.write("server_overhead", result, args.out)


if __name__ == "__main__":
    main()
