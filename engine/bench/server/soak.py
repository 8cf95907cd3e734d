"""Hours of use in minutes: the traces in random order, over and over, in two windows on one engine.

Fails if a request stays unanswered, if the server writes an error to its log, or if memory grows: of the engine and of
each server, resident memory at the end against that after the first sixth.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
from dgemma_engine.model_store.catalogue import TINY
from editor import Editor, editing
from typing_traces import TRACES, watched
from window import Window

MOST_GROWTH = 0.05


async def one_window(
    editor: Editor, scripts: list[list[list[Any]]], until_s: float, seed: int, windows: list[Window]
) -> None:
    """Plays scripts in one session until the time is over; every document is closed afterwards."""
    order = random.Random(seed)
    while time.monotonic() < until_s:
        kind = order.choice(("vscode", "vscode", "neovim"))
        window = Window(
            editor, f"soak/{seed}/{len(windows)}", client=kind, pairs=order.random() < 0.3, seed=len(windows)
        )
        windows.append(window)
        try:
            async with asyncio.timeout(max(0.1, until_s - time.monotonic())):
                await window.play(order.choice(scripts))
        except TimeoutError:
            await window.settle()
        window.close_all()


def memory_mib(folder: str) -> dict[str, float]:
    """Returns resident memory of the engine (`engine`) and of all servers together (`servers`)."""
    found = {"engine": 0.0, "servers": 0.0}
    for process in psutil.Process().children(recursive=True):
        try:
            command = process.cmdline()
            name = "engine" if folder in command else "servers" if "dgemma_lsp" in command else None
            if name:
                found[name] += process.memory_info().rss / 2**20
        except psutil.Error:
            continue
    return found


async def measure(minutes: float) -> dict[str, Any]:
    """Runs the soak, and returns the result."""
    traces = [json.loads(line) for line in TRACES.read_text().splitlines()]
    scripts = [window["script"] for trace in traces for window in trace["windows"]]
    with tempfile.TemporaryDirectory(prefix="dgemma-") as folder:
        log = f"{folder}/server.log"
        options = {"engine": {"model": TINY, "autostart": False}}
        async with (
            watched(Path(folder)),
            editing(options, folder, log) as first,
            editing(options, folder, log) as second,
        ):
            windows: list[Window] = []
            started_s = time.monotonic()
            until_s = started_s + 60 * minutes
            playing = [
                asyncio.create_task(one_window(editor, scripts, until_s, seed, windows))
                for seed, editor in enumerate((first, second))
            ]
            await asyncio.sleep(60 * minutes / 6)
            early = memory_mib(folder)
            await asyncio.gather(*playing)
            late = memory_mib(folder)
        log_text = await asyncio.to_thread(Path(log).read_text)
    asked = [one for window in windows for one in window.asked]
    return {
        "minutes": minutes,
        "scripts": len(windows),
        "requests": len(asked),
        "unanswered": sum(one.answered_s is None for one in asked),
        "stale_applied": sum(one.stale_s > 0 for one in asked),
        "stale_ms": [round(1e3 * one.stale_s, 1) for one in asked if one.stale_s],
        "errors_other_than_cancelled": sum(one.error not in {None, -32800} for one in asked),
        "server_log_lines": len(log_text.splitlines()),
        "memory_mib_early": {name: round(value, 1) for name, value in early.items()},
        "memory_mib_late": {name: round(value, 1) for name, value in late.items()},
        "memory_growth": {name: round(late[name] / early[name] - 1, 4) for name in early},
    }


def main() -> int:
    """Runs the soak; the exit code is 1 if a limit was exceeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--minutes", type=float, default=30.0)
    args = parser.parse_args()
    result = asyncio.run(measure(args.minutes))
    record.write("soak", {**result, "target_memory_growth": MOST_GROWTH}, args.out)
    wrong = [name for name in ("unanswered", "errors_other_than_cancelled", "server_log_lines") if result[name]]
    # Caches fill in the first minutes; a short run says nothing of growth.
    if args.minutes >= 30 and max(result["memory_growth"].values()) > MOST_GROWTH:
        wrong.append("memory_growth")
    if wrong:
        print(f"soak: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
