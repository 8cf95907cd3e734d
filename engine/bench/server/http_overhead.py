"""What HTTP adds to a request over the socket: one at a time, interleaved, and 50 clients at once; and its memory.

The engine answers at once, in a process of its own; the front door is `dgemma-engine serve` in another. Each round
types one character into the middle of a 2,000-line file and asks the same over the socket, over a connection that stays
open, and over a new connection. What HTTP adds is the difference within a round. The 50 clients each wait for a request
that takes the engine 200 ms; 80 clients are more than may wait.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import psutil
import record
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.protocol.messages import Context, Draft, Finish, Infill
from dgemma_engine.scheduling.cancellation import Cancel
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.serving import daemon
from dgemma_engine.tracing.recorder import Recorder
from http_front import Connection, front_door

NUM_LINES = 2_000
NUM_CLIENTS, MORE_CLIENTS = 50, 80
_PIECES, _PIECE_S = 20, 0.01
_TARGETS = {"target_added_median_ms": 3, "target_added_p95_ms": 8, "target_memory_mib": 80}


class InstantEngine:
    """Answers at once; a document of the path `slow.py` takes 200 ms."""

    model_name = "instant"
    model_path = "instant"
    device = "cpu"
    number_format = "float32"
    compiled = False
    uncompiled_reason = ""
    denoising_steps = 0
    device_memory_bytes = 0

    def filling(
        self,
        context: Context,
        cancel: Cancel,
        *,
        on_draft: Callable[[Draft], None] = lambda _draft: None,
        recorder: Recorder | None = None,
    ) -> Pieces[Infill]:
        """Returns a short middle."""
        for _ in range(_PIECES if context.path == "slow.py" else 0):
            if (finish := cancel.finish) is not None:
                return Infill(text="", finish=finish)
            time.sleep(_PIECE_S)
            yield
        return Infill(text="value", finish=Finish.STABLE, score=0.9, steps=1, timings_ms={"total": 0.0})


def run_engine(runtime: str) -> None:
    """Serves the engine until it is terminated."""
    location = EngineLocation.locate({"DGEMMA_RUNTIME_DIR": runtime}, model="tiny")
    daemon.run(location, load=lambda _report: InstantEngine(), idle_s=None)


@asynccontextmanager
async def engine(runtime: str) -> AsyncGenerator[EngineClient]:
    """Gives a client of an engine in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=run_engine, args=(runtime,))
    process.start()
    location = EngineLocation.locate({"DGEMMA_RUNTIME_DIR": runtime}, model="tiny")
    try:
        while not location.socket.exists():
            await asyncio.sleep(0.05)
        async with await EngineClient.attach(location) as client:
            await client.wait_ready(60)
            yield client
    finally:
        process.terminate()
        process.join()


async def one_at_a_time(client: EngineClient, url: str, rounds: int) -> dict[str, Any]:
    """Returns the milliseconds of each way, and what HTTP adds."""
    lines = [f"value_{i} = compute(value_{i - 1}, {i})\n" for i in range(NUM_LINES)]
    above, suffix = "".join(lines[: NUM_LINES // 2])[-16_000:], "".join(lines[NUM_LINES // 2 :])[:8_000]
    times_ms: dict[str, list[float]] = {"socket": [], "kept": [], "new": []}

    async def over_socket(prefix: str) -> str:
        return (await client.infill(Context(document="a", prefix=prefix, suffix=suffix))).text

    async def over_http(connection: Connection, prefix: str) -> str:
        body = {"document": "a", "prefix": prefix, "suffix": suffix}
        return json.loads((await connection.post("/v1/infill", body))[1])["text"]

    async def anew(prefix: str) -> str:
        async with Connection.open(url) as connection:
            return await over_http(connection, prefix)

    async with Connection.open(url) as kept:
        ways = {"socket": over_socket, "kept": lambda prefix: over_http(kept, prefix), "new": anew}
        for column in range(rounds + 20):
            for name, way in ways.items():
                started = time.perf_counter()
                assert await way(above + "x" * column) == "value"
                times_ms[name].append((time.perf_counter() - started) * 1e3)
    times_ms = {name: values[20:] for name, values in times_ms.items()}
    result: dict[str, Any] = {}
    for name, values in times_ms.items():
        added = [one - socket for one, socket in zip(values, times_ms["socket"], strict=True)]
        result[name] = _spread(values) | ({} if name == "socket" else {"added": _spread(added)})
    return result


async def at_once(url: str, num_clients: int) -> dict[str, Any]:
    """Returns how many of so many clients were answered with a text, and when the last one was."""
    statuses: Counter[int] = Counter()
    num_texts = 0

    async def ask(number: int) -> None:
        nonlocal num_texts
        body = {"document": f"{number}", "prefix": "value = ", "suffix": "\n", "path": "slow.py"}
        async with Connection.open(url) as connection:
            status, answer = await connection.post("/v1/infill", body)
        statuses[status] += 1
        num_texts += status == 200 and json.loads(answer)["text"] == "value"

    started = time.perf_counter()
    await asyncio.gather(*(ask(number) for number in range(num_clients)))
    seconds = time.perf_counter() - started
    by_status = {f"{status}": count for status, count in sorted(statuses.items())}
    return {"clients": num_clients, "statuses": by_status, "with_text": num_texts, "seconds": round(seconds, 2)}


async def measure(rounds: int) -> dict[str, Any]:
    """Returns all figures."""
    with tempfile.TemporaryDirectory(prefix="dgemma-") as runtime:
        async with engine(runtime) as client, front_door(runtime) as (url, pid):
            alone = await one_at_a_time(client, url, rounds)
            memory_before = psutil.Process(pid).memory_info().rss
            crowds = [await at_once(url, num) for num in (NUM_CLIENTS, MORE_CLIENTS)]
            memory = psutil.Process(pid).memory_info().rss
    return {
        "one_at_a_time": alone,
        "memory_mib": round(memory_before / 2**20, 1),
        "memory_after_crowds_mib": round(memory / 2**20, 1),
        "at_once": crowds,
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"median_ms": round(statistics.median(values), 2), "p95_ms": round(record.quantile(values, 0.95), 2)}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--rounds", type=int, default=300)
    args = parser.parse_args()
    result = asyncio.run(measure(args.rounds))
    record.write("http_overhead", {"lines": NUM_LINES, "rounds": args.rounds, **result, **_TARGETS}, args.out)


if __name__ == "__main__":
    main()
