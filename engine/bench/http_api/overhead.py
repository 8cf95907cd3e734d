"""What HTTP adds to a request over the socket: one at a time, interleaved, and 50 clients at once; and its memory.

The engine answers at once, in a process of its own; the HTTP server is `dgemma-engine serve` in another. Each round
types one character into the middle of a 2,000-line file and asks the same over the socket, over a connection that stays
open, and over a new connection. What HTTP adds is the difference within a round. Then 50 clients ask at once, 80 (more
than may wait), and 20 typists three times each: once with requests that take that engine 200 ms, and once with the
embedded model on the processor.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies
sys.path.insert(0, str(Path(__file__).parents[1] / "server"))

import instant_engine
import psutil
import record
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.protocol.messages import Context
from running_server import Connection, running_server
from typing_traces import watched

NUM_LINES = 2_000
NUM_CLIENTS, MORE_CLIENTS = 50, 80
NUM_TYPISTS, KEYS = 20, ("s", "si", "size")
_TARGETS = {"target_added_median_ms": 3, "target_added_p95_ms": 8, "target_memory_mib": 80}

Body = Callable[[int, str], dict[str, Any]]
"""The request of a client about its document, into which a name has been typed."""


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
        result[name] = record.spread(values, middle="median_ms")
        if name != "socket":
            result[name]["added"] = record.spread(added, middle="median_ms")
    return result


def slow_body(number: int, name: str) -> dict[str, Any]:
    """Returns a request that takes the engine without a model 200 ms."""
    return {"document": f"{number}", "prefix": f"{name} = ", "suffix": "\n", "path": instant_engine.SLOW_PATH}


def real_body(number: int, name: str) -> dict[str, Any]:
    """Returns a request for the embedded model, which answers its best text."""
    prefix = f"def area_{number}(width, height):\n    {name} = width * height\n    return "
    body = {"document": f"{number}", "prefix": prefix, "suffix": "\n", "path": f"shape_{number}.py"}
    return body | {"language": "python", "max_middle_tokens": 16, "deadline_ms": 10_000, "insistent": True}


async def at_once(url: str, num_clients: int, body_of: Body) -> dict[str, Any]:
    """Returns how many of so many clients were answered with a text, and when the last one was."""
    statuses: Counter[int] = Counter()
    num_texts = 0

    async def ask(number: int) -> None:
        nonlocal num_texts
        async with Connection.open(url) as connection:
            status, answer = await connection.post("/v1/infill", body_of(number, KEYS[-1]))
        statuses[status] += 1
        num_texts += status == 200 and bool(json.loads(answer)["text"])

    started = time.perf_counter()
    await asyncio.gather(*(ask(number) for number in range(num_clients)))
    seconds = time.perf_counter() - started
    by_status = {f"{status}": count for status, count in sorted(statuses.items())}
    return {"clients": num_clients, "statuses": by_status, "with_text": num_texts, "seconds": round(seconds, 2)}


async def typists(url: str, body_of: Body) -> dict[str, Any]:
    """Returns how many requests of 20 documents had a text: of the newest of three each, and of the older ones."""

    async def ask(number: int, name: str) -> str:
        async with Connection.open(url) as connection:
            status, answer = await connection.post("/v1/infill", body_of(number, name))
        assert status == 200, answer
        return json.loads(answer)["text"]

    rounds: list[list[asyncio.Task[str]]] = []
    for name in KEYS:
        rounds.append([asyncio.create_task(ask(number, name)) for number in range(NUM_TYPISTS)])
        await asyncio.sleep(0.05)
    texts = [await asyncio.gather(*tasks) for tasks in rounds]
    return {
        "documents": NUM_TYPISTS,
        "requests": NUM_TYPISTS * len(KEYS),
        "newest_with_text": sum(map(bool, texts[-1])),
        "older_with_text": sum(map(bool, itertools.chain(*texts[:-1]))),
    }


async def crowds(url: str, body_of: Body) -> dict[str, Any]:
    """Returns how many clients that ask at once were answered."""
    num_clients = (NUM_CLIENTS, MORE_CLIENTS)
    return {
        "at_once": [await at_once(url, num, body_of) for num in num_clients],
        "typing": await typists(url, body_of),
    }


async def measure(rounds: int) -> dict[str, Any]:
    """Returns all figures."""
    with tempfile.TemporaryDirectory(prefix="dgemma-") as runtime:
        location = EngineLocation.locate({"DGEMMA_RUNTIME_DIR": runtime}, model="tiny")
        async with instant_engine.process(location) as client, running_server(runtime) as (url, pid):
            alone = await one_at_a_time(client, url, rounds)
            memory_before = psutil.Process(pid).memory_info().rss
            instant = await crowds(url, slow_body)
            memory = psutil.Process(pid).memory_info().rss
    with tempfile.TemporaryDirectory(prefix="dgemma-") as runtime:
        async with watched(Path(runtime)), running_server(runtime) as (url, _pid):
            real = await crowds(url, real_body)
    return {
        "one_at_a_time": alone,
        "memory_mib": round(memory_before / 2**20, 1),
        "memory_after_crowds_mib": round(memory / 2**20, 1),
        "instant_engine": instant,
        "real_engine": real,
    }


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
