"""Requests that Schemathesis makes from the published document, against the HTTP server: answers and faults.

    make fuzz-http

First with an engine that answers at once, in this process; then `dgemma-engine serve` with the embedded model.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies
sys.path.insert(0, str(Path(__file__).parents[1] / "server"))

import record
import schemathesis
from dgemma_engine.http_api.app import OPENAPI_PATH, create_app
from running_server import running_server
from typing_traces import watched

sys.path.insert(0, str(record.HERE.parents[1]))
from tests.engine.http_api.fuzzing import Fuzzer
from tests.engine.http_api.running_server import FREE_PORT, AnsweringEngine


def with_instant_engine(num_cases: int) -> dict[str, Any]:
    """Asks the application over an engine without a model."""
    app = create_app(AnsweringEngine("alpha", "beta"), replace(FREE_PORT, hosts=("testserver",)))
    return played(Fuzzer(schemathesis.openapi.from_asgi(OPENAPI_PATH, app)), num_cases)


def with_real_engine(num_cases: int) -> dict[str, Any]:
    """Asks a server over the embedded model."""

    async def playing() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="t-") as folder:
            async with watched(Path(folder)), running_server(folder) as (url, _pid):
                schema = await asyncio.to_thread(schemathesis.openapi.from_url, url + OPENAPI_PATH)
                return await asyncio.to_thread(played, Fuzzer(schema), num_cases)

    return asyncio.run(playing())


def played(fuzzer: Fuzzer, num_cases: int) -> dict[str, Any]:
    """Sends the requests, and returns the result."""
    started_s = time.monotonic()
    by_operation: dict[str, Counter[int]] = {}
    faults: list[str] = []
    for sort in fuzzer.sorts:
        statuses = by_operation.setdefault(sort.label, Counter())
        try:
            fuzzer.ask(sort, fuzzer.num_of_sort(num_cases), statuses)
        except Exception as error:  # whatever is wrong, the other kinds of requests are sent too
            faults.append(f"{sort.label}, {sort.mode.value}: {type(error).__name__}")
            print(faults[-1], error, file=sys.stderr)
    return {
        "cases": sum(statuses.total() for statuses in by_operation.values()),
        "seconds": round(time.monotonic() - started_s, 1),
        "statuses": _counts(sum(by_operation.values(), Counter())),
        "server_errors": sum(num for one in by_operation.values() for status, num in one.items() if status >= 500),
        "faults": faults,
        "by_operation": {label: _counts(statuses) for label, statuses in by_operation.items()},
    }


def _counts(statuses: Counter[int]) -> dict[str, int]:
    return {f"{status}": num for status, num in sorted(statuses.items())}


def main() -> int:
    """Asks both; the exit code is 1 if an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--cases", type=int, default=100_000, help="with the engine that answers at once")
    parser.add_argument("--real-cases", type=int, default=2_000, help="with the real engine")
    args = parser.parse_args()
    result = {
        "real_engine": with_real_engine(args.real_cases),
        "instant_engine": with_instant_engine(args.cases),
    }
    record.write("http_fuzz", result, args.out)
    return 1 if any(one["faults"] or one["server_errors"] for one in result.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
