"""Traces of typing replayed over stdio against the real server and engine, and a burst of 200 requests.

The traces are `traces.jsonl`: typing, bursts, backspaces, jumps, accepts, undo, pastes, several documents and windows,
in files of the standard library with a piece taken out that is typed again. The model runs on the processor, whose
seconds are counted while the traces are played. A run that the engine failed in is no result.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import psutil
import record
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.errors import EngineUnavailable
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.model_store.catalogue import TINY
from editor import editing
from window import AskedItem, Window

TRACES = record.HERE / "traces.jsonl"
_TARGETS = {
    "target_typed_through_p95_ms": 5,
    "target_older_than_newest_ms": 50,
    "target_served_without_engine": 0.4,
    "target_storm_idle_ms": 500,
    "target_fairness_steps": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A watched engine.

    Attributes:
        runs: the file of its runs.
        errors: what it wrote to its standard error.
        process: its process.
    """

    runs: Path
    errors: Path
    process: psutil.Process

    def cpu_s(self) -> float:
        """Returns the seconds that it has spent on the processor."""
        times = self.process.cpu_times()
        return times.user + times.system


@asynccontextmanager
async def watched(folder: Path, model: str = TINY) -> AsyncGenerator[Watched]:
    """Runs the watched engine in `folder`."""
    runs, errors = folder / "runs.jsonl", folder / "engine.err"
    script = str(Path(__file__).with_name("watched_engine.py"))
    with errors.open("wb") as written:
        process = await asyncio.create_subprocess_exec(
            sys.executable, script, str(folder), str(runs), model, stderr=written
        )
    location = EngineLocation.locate({"DGEMMA_RUNTIME_DIR": str(folder)}, model=model)
    try:
        while True:
            try:
                async with await EngineClient.attach(location) as client:
                    await client.wait_ready(120)
                break
            except EngineUnavailable:
                await asyncio.sleep(0.1)
        yield Watched(runs=runs, errors=errors, process=psutil.Process(process.pid))
    finally:
        process.terminate()
        await process.wait()


def read_runs(path: Path) -> list[dict[str, Any]]:
    """Returns the runs so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def play(trace: dict[str, Any], folder: Path, options: dict[str, Any]) -> tuple[list[Window], list[Any]]:
    """Plays a trace; returns its windows and the tallies of their servers."""
    async with AsyncExitStack() as stack:
        windows: list[Window] = []
        editors: list[Any] = []
        for index, spec in enumerate(trace["windows"]):
            editor = await stack.enter_async_context(editing(options, str(folder), str(folder / "server.log")))
            editors.append(editor)
            name = f"{trace['name']}/{index}"
            windows.append(
                Window(editor, name, client=spec["client"], pairs=spec.get("pairs", False), seed=len(trace["name"]))
            )
        scripts = [spec["script"] for spec in trace["windows"]]
        await asyncio.gather(*(window.play(script) for window, script in zip(windows, scripts, strict=True)))
        tallies = [await editor.client.protocol.send_request_async("dgemma/tally", None) for editor in editors]
    return windows, tallies


async def storm(folder: Path, runs: Path, *, num_requests: int = 200, seconds: float = 2.0) -> dict[str, Any]:
    """Asks `num_requests` times in `seconds`, a key before each; returns outcomes and when the engine was idle."""
    begun = len(read_runs(runs))
    spec = {"client": "vscode", "script": [["open", "textwrap.py", "self.placeholder = placeholder", 1]]}
    async with editing({}, str(folder), str(folder / "server.log")) as editor:
        window = Window(editor, "storm", client=spec["client"])
        await window.play(spec["script"])
        started_s = time.monotonic()
        for number in range(num_requests):
            await window.paste("x")
            await asyncio.sleep(max(0.0, started_s + (number + 1) * seconds / num_requests - time.monotonic()))
        last_s = window.asked[-1].sent_s
        await window.settle()
        await asyncio.sleep(2.0)
    ended_s = max((run["ended_s"] for run in read_runs(runs)[begun:]), default=last_s)
    return {
        "storm_requests": num_requests,
        "storm_seconds": round(last_s - started_s, 2),
        "storm_unanswered": sum(asked.answered_s is None for asked in window.asked),
        "storm_engine_runs": len(read_runs(runs)) - begun,
        "storm_idle_ms": round(1e3 * max(0.0, ended_s - last_s), 1),
    }


def overruns_ms(runs: list[dict[str, Any]], asked: list[AskedItem]) -> list[float]:
    """Returns how long each cancelled run went on after the newest request of its document had been sent."""
    found: list[float] = []
    for run in runs:
        if run["finish"] != "cancelled" or run["speculative"]:
            continue
        uri = run["document"].partition("/")[2]
        newer = [one.sent_s for one in asked if one.uri == uri and run["arrived_s"] < one.sent_s < run["ended_s"]]
        if newer:
            found.append(1e3 * (run["ended_s"] - max(newer)))
    return found


def foreign_steps(runs: list[dict[str, Any]]) -> list[int]:
    """Returns for each request how many denoising steps of other windows were begun between its arrival and start.

    Only requests that arrived while another window's was running count.
    """
    owner = {id(run): run["document"].partition("/")[0] for run in runs}
    found: list[int] = []
    for run in runs:
        others = [other for other in runs if owner[id(other)] != owner[id(run)] and not other["speculative"]]
        if run["speculative"] or not any(o["started_s"] < run["arrived_s"] < o["ended_s"] for o in others):
            continue
        found.append(sum(run["arrived_s"] < at_s < run["started_s"] for other in others for at_s in other["steps_s"]))
    return found


def figures(windows: list[Window], tallies: list[Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the figures of all traces together.

    `served_without_engine` is the share of the requests answered with a list, empty or not, that the engine did nothing
    for; `served_from_earlier_work` leaves those out that nothing was asked for at all, such as after a deletion.
    """
    asked = [one for window in windows for one in window.asked]
    answered = [one for one in asked if one.answered_s is not None]
    lists = [one for one in answered if one.error is None]
    items = [one for one in lists if one.inserted is not None]
    through = [one for one in lists if one.expected is not None]
    sources = {name: sum(getattr(tally.sources, name) for tally in tallies) for name in tallies[0].sources._fields}
    total = {name: sum(getattr(tally, name) for tally in tallies) for name in tallies[0]._fields if name != "sources"}
    num_lists = sum(sources.values())
    real = [run for run in runs if not run["speculative"]]
    prepared = [run for run in runs if run["speculative"]]
    steps_real, steps_prepared = (sum(run["steps"] for run in some) for some in (real, prepared))
    used = total["steps_used"] + total["speculative_steps_used"]
    keys = sum(window.keys for window in windows)
    late = overruns_ms(runs, asked)
    let_go, preempted = _let_go_ms(real), _let_go_ms(prepared)
    foreign = foreign_steps(runs)
    return {
        "keys": keys,
        "requests": len(asked),
        "answered": len(answered),
        "unanswered": len(asked) - len(answered),
        "answered_with_list": len(lists),
        "answered_with_item": len(items),
        "superseded": len(answered) - len(lists),
        "errors_other_than_cancelled": sum(one.error not in {None, -32800} for one in answered),
        "stale_applied": sum(one.stale_s > 0 for one in asked),
        "accepted": sum(window.accepted for window in windows),
        "sources": sources,
        "served_without_engine": _share(num_lists - sources["engine"], num_lists),
        "served_from_earlier_work": _share(num_lists - sources["engine"] - sources["not_asked"], num_lists),
        "items_without_engine": _share(sum(one.expected is not None for one in items), len(items)),
        **_times("", items),
        **_times("typed_through_", through),
        **_times("engine_", [one for one in items if one.expected is None]),
        "typed_through_differently": sum(one.inserted != one.expected for one in through),
        "engine_runs": len(real),
        "engine_runs_cancelled": sum(run["finish"] == "cancelled" for run in real),
        "denoising_steps": steps_real + steps_prepared,
        "wasted_steps_share": _share(steps_real + steps_prepared - used, steps_real + steps_prepared),
        "wasted_steps_share_asked": _share(steps_real - total["steps_used"], steps_real),
        "prepared_runs": len(prepared),
        "prepared_used": total["prepared_used"],
        "prepared_preempted": len(preempted),
        "preempted_within_ms_max": round(max(preempted, default=0.0), 1),
        "adopted": total["adopted"],
        "older_than_newest": len(late),
        "older_than_newest_p95_ms": round(record.quantile(late, 0.95), 1) if late else 0.0,
        "older_than_newest_max_ms": round(max(late, default=0.0), 1),
        "let_go_p95_ms": round(record.quantile(let_go, 0.95), 1) if let_go else 0.0,
        "let_go_max_ms": round(max(let_go, default=0.0), 1),
        "encoded_tokens_per_key": round(sum(run["encoded"] for run in real) / max(1, keys), 1),
        "encoded_tokens_per_run_median": record.quantile([run["encoded"] for run in real], 0.5) if real else 0,
        "prepared_encoded_tokens_per_run": round(sum(run["encoded"] for run in prepared) / max(1, len(prepared)), 1),
        "fairness_requests": len(foreign),
        "fairness_steps_p95": record.quantile(foreign, 0.95) if foreign else 0,
        "fairness_steps_max": max(foreign, default=0),
    }


def _let_go_ms(runs: list[dict[str, Any]]) -> list[float]:
    """Returns how long the engine went on with each cancelled run after it had received the cancellation."""
    return [1e3 * (run["ended_s"] - run["cancelled_s"]) for run in runs if run["cancelled_s"] is not None]


def _share(part: int, whole: int) -> float:
    return round(part / whole, 3) if whole else 0.0


def _times(name: str, asked: list[AskedItem]) -> dict[str, float | None]:
    times_ms = [1e3 * (one.answered_s - one.sent_s) for one in asked if one.answered_s is not None]
    return record.spread(times_ms, prefix=name)


async def measure(traces: list[dict[str, Any]], options: dict[str, Any]) -> dict[str, Any]:
    """Plays all traces one after another, then the storm.

    Raises:
        SystemExit: the engine failed.
    """
    with tempfile.TemporaryDirectory(prefix="dgemma-") as name:
        folder = Path(name)
        async with watched(folder, options["engine"]["model"]) as engine:
            windows: list[Window] = []
            tallies: list[Any] = []
            begun_s = engine.cpu_s()
            for trace in traces:
                some, counts = await play(trace, folder, options)
                windows += some
                tallies += counts
                print(f"{trace['name']}: {sum(len(window.asked) for window in some)} requests", file=sys.stderr)
            spent_s = engine.cpu_s() - begun_s
            result = figures(windows, tallies, read_runs(engine.runs))
            result["engine_cpu_s_per_100_keys"] = round(100 * spent_s / max(1, result["keys"]), 2)
            result |= await storm(folder, engine.runs)
            log = (folder / "server.log").read_text()
            failed = engine.errors.read_text()
            if "Traceback" in failed or not result["engine_runs"]:
                raise SystemExit(f"the engine failed or was never asked, so nothing was measured:\n{failed}{log}")
    return {"traces": len(traces), **result, "server_log_lines": len(log.splitlines())}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--traces", type=int, default=None, help="only so many")
    parser.add_argument("--no-speculation", action="store_true")
    parser.add_argument("--model", choices=("tiny", "small", "coder"), default=TINY, help="default: tiny")
    args = parser.parse_args()
    traces = [json.loads(line) for line in TRACES.read_text().splitlines()][: args.traces]
    # The servers have a home of their own, where no model was fetched.
    model = TINY if args.model == TINY else str(model_folder(args.model))
    options = {"engine": {"model": model, "autostart": False}, "speculation": not args.no_speculation}
    result = asyncio.run(measure(traces, options))
    name = "typing" if args.model == TINY else f"typing_{args.model}"
    record.write(name, {"model": args.model, "speculation": options["speculation"], **result, **_TARGETS}, args.out)


if __name__ == "__main__":
    main()
