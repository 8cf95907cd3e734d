"""Typing replayed over HTTP as editors' plugins send it, against the real engine: prompt tokens encoded anew per key.

Lines in the middle of a long file of the standard library are taken out and typed again, a request after each key. Two
clients: one sends the 256 lines before the cursor's line, as llama.vim does, and one the last 4,000 characters, as
plugins for OpenAI's API do; both windows move. The embedded model runs on the processor.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies
sys.path.insert(0, str(Path(__file__).parents[1] / "server"))

import record
from running_server import Connection, running_server
from typing_traces import read_runs, watched

SOURCE = Path(argparse.__file__)
FIRST_LINE, NUM_TYPED_LINES = 700, 8
_TARGETS = {"target_encoded_median": 16}


def lines_request(before: str, after: str) -> tuple[str, dict[str, Any]]:
    """Returns path and body of llama.vim's request."""
    above, _, line = before.rpartition("\n")
    prefix = "".join(f"{one}\n" for one in above.split("\n")[-256:])
    suffix = "\n".join(after.split("\n")[:64])
    return "/infill", {"input_prefix": prefix, "prompt": line, "input_suffix": suffix, "n_predict": 8}


def characters_request(before: str, after: str) -> tuple[str, dict[str, Any]]:
    """Returns path and body of a plugin for OpenAI's API."""
    return "/v1/completions", {"model": "tiny", "prompt": before[-4_000:], "suffix": after[:1_000], "max_tokens": 8}


async def replay(request: Any, folder: Path) -> dict[str, Any]:
    """Returns the tokens encoded per key."""
    lines = SOURCE.read_text(encoding="utf-8").splitlines(keepends=True)  # noqa: ASYNC240
    before, after = "".join(lines[:FIRST_LINE]), "".join(lines[FIRST_LINE + NUM_TYPED_LINES :])
    typed = "".join(lines[FIRST_LINE : FIRST_LINE + NUM_TYPED_LINES])
    async with (
        watched(folder) as engine,
        running_server(str(folder)) as (url, _pid),
        Connection.open(url) as connection,
    ):
        known = len(read_runs(engine.runs))
        for num_keys in range(len(typed) + 1):
            status, _ = await connection.post(*request(before + typed[:num_keys], "\n" + after))
            assert status == 200
        encoded = [run["encoded"] for run in read_runs(engine.runs)[known:]]
    assert len(encoded) == len(typed) + 1, (len(encoded), len(typed) + 1)
    keys = encoded[1:]
    return {
        "keys": len(keys),
        "encoded_first": encoded[0],
        "encoded_median": statistics.median(keys),
        "encoded_mean": round(statistics.mean(keys), 1),
        "encoded_p95": record.quantile(keys, 0.95),
        "encoded_most": max(keys),
    }


async def measure() -> dict[str, Any]:
    """Returns the figures of both clients."""
    result: dict[str, Any] = {}
    for name, request in (("lines", lines_request), ("characters", characters_request)):
        with tempfile.TemporaryDirectory(prefix="dgemma-") as folder:
            result[name] = await replay(request, Path(folder))
    return result


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    args = parser.parse_args()
    record.write("http_replay", {**asyncio.run(measure()), **_TARGETS}, args.out)


if __name__ == "__main__":
    main()
