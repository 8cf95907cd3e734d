"""Where the time of a warm completion goes: by stage, and by kind of operation inside the model.

Types into this file's neighbour `warm.py` and completes after every character as an editor would have it, with all
candidates, on one thread and in processor time. Stages are timed without a profiler. Then as many requests run under
one, and its operations are put into kinds, each operation counted with the median of its name and shapes. The profiler
itself takes time, and Python between operations is not in it: kinds are shares of the operations' own time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
import torch
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.infill.engine import Engine
from dgemma_engine.model_store.catalogue import TINY
from dgemma_engine.protocol.messages import Context, Infill
from dgemma_engine.scheduling.timing import Cancel
from torch.profiler import ProfilerActivity, profile
from warm import typed

KINDS = {
    "products": "linear_pointwise mm addmm bmm linear matmul",
    "attention": "scaled_dot_product",
    "norms": "linalg_vector_norm hypot rms_norm addcdiv",
    "softmax, drawing, best tokens": "softmax cumsum searchsorted max amax logsumexp argmax tanh",
    "routing and lookups": "topk scatter index gather embedding",
    "other element-wise": "mul add sub div gelu addcmul linalg_vecdot exp log clamp sum",
    "copies and conversions": "copy to_copy cat stack roll repeat clone to contiguous",
    "memory and views": "empty zeros view slice select transpose as_strided permute reshape flatten unflatten expand "
    "unsqueeze squeeze narrow chunk split resize arange fill zero t",
}


def main() -> None:
    """Times the stages, then profiles the operations."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--model", type=Path, default=model_folder(TINY))
    args = parser.parse_args()
    engine = Engine.load(args.model, device="cpu", report=lambda _percent, _message: None)
    contexts = typed(2 * args.rounds + 3)
    torch.set_num_threads(1)
    engine._clock = time.process_time  # pyright: ignore[reportPrivateUsage]
    # The first requests make one-time allocations.
    for context in contexts[:3]:
        complete(engine, context)
    timed = [complete(engine, context) for context in contexts[3 : 3 + args.rounds]]
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        for context in contexts[3 + args.rounds :]:
            complete(engine, context)
    kinds = by_kind(seen, args.rounds)
    spent_ms = sum(kind["ms"] for kind in kinds.values())
    result = {
        "model": engine.model_name,
        "rounds": args.rounds,
        "threads": torch.get_num_threads(),
        "clock": "processor time",
        "forwards": statistics.mean(infill.forwards for infill in timed),
        "stages_ms": {
            stage: round(statistics.median(infill.timings_ms[stage] for infill in timed), 3)
            for stage in timed[0].timings_ms
        },
        "operations_ms": round(spent_ms, 3),
        "kinds": {
            name: kind | {"share": round(kind["ms"] / spent_ms, 3)}
            for name, kind in sorted(kinds.items(), key=lambda item: -item[1]["ms"])
        },
    }
    record.write("breakdown", result, args.out)
    print(table(result))


def complete(engine: Engine, context: Context) -> Infill:
    """Answers one request with a very long deadline."""
    return engine.infill(context, Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic))


def by_kind(seen: profile, rounds: int) -> dict[str, dict[str, float]]:
    """Returns calls and milliseconds per request of each kind of operation."""
    kinds = {name: {"calls": 0.0, "ms": 0.0} for name in (*KINDS, "everything else")}
    times: dict[tuple[str, str], list[float]] = {}
    for event in seen.events() or ():
        times.setdefault((event.key, str(event.input_shapes)), []).append(event.self_cpu_time_total)
    for (name, _shapes), micros in times.items():
        kind = kinds[kind_of(name)]
        kind["calls"] += len(micros) / rounds
        kind["ms"] += statistics.median(micros) * len(micros) / 1e3 / rounds
    return {name: {key: round(value, 3) for key, value in kind.items()} for name, kind in kinds.items()}


def kind_of(operation: str) -> str:
    """Returns the kind of an operation: the one that names it whole, else the one that names its beginning."""
    name = operation.rpartition("::")[2].strip("_")
    for kind, names in KINDS.items():
        if name in names.split():
            return kind
    for kind, names in KINDS.items():
        if name.startswith(tuple(known for known in names.split() if known not in ("t", "to"))):
            return kind
    return "everything else"


def table(result: dict[str, Any]) -> str:
    """Returns the result as the tables of docs/PERFORMANCE.md."""
    rows = ["| stage | measured | target | from |", "| --- | --- | --- | --- |"]
    rows += [
        f"| {stage} | {value:.12g} ms | none set | `breakdown.json: stages_ms.{stage}` |"
        for stage, value in result["stages_ms"].items()
    ]
    rows += ["", "| kind of operation | measured | calls, share | from |", "| --- | --- | --- | --- |"]
    rows += [
        f"| {name} | {kind['ms']} ms | {kind['calls']:.0f}, {kind['share']:.0%} | `breakdown.json: kinds.{name}.ms` |"
        for name, kind in result["kinds"].items()
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    main()
