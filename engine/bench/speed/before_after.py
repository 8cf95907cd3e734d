"""Speed of this checkout compared with an older one: the same benchmarks, in turn, in one run.

The older checkout is a worktree of this repository (`git worktree add FOLDER COMMIT`); both run under this interpreter
and its packages, each with its own sources. Every round runs a benchmark in both, the older one first in even rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record

HERE = Path(__file__).parents[3]
# By benchmark the milliseconds that are compared, as paths into its result.
FIGURES = {
    "warm": ("ours_ms", "ours_fresh_ms"),
    "step": ("step_ms/float32 lean", "parts_ms/encode prompt"),
    "keystrokes": ("warm_ms", "cold_ms"),
    "server_overhead": ("median_ms", "p95_ms"),
}


def run(checkout: Path, benchmark: str) -> dict[str, float]:
    """Returns the milliseconds of one run of a benchmark in a checkout, by figure."""
    [script] = (checkout / "engine/bench").rglob(f"{benchmark}.py")
    sources = os.pathsep.join(str(checkout / folder) for folder in (".", "engine", "kernels"))
    with tempfile.TemporaryDirectory(prefix="dgemma-") as folder:
        environ = os.environ | {"PYTHONPATH": sources, "DGEMMA_RUNTIME_DIR": folder}
        command = [sys.executable, str(script), "--out", folder]
        subprocess.run(command, cwd=checkout, env=environ, check=True, stdout=subprocess.DEVNULL)
        result = json.loads((Path(folder) / f"{benchmark}.json").read_text(encoding="utf-8"))
    return {figure: _at(result, figure) for figure in FIGURES[benchmark]}


def _at(result: dict[str, Any], figure: str) -> float:
    value: Any = result
    for name in figure.split("/"):
        value = value[name]
    return float(value)


def commit_of(checkout: Path) -> str:
    """Returns the short name of a checkout's commit."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True).stdout.strip()


def compare(checkouts: dict[str, Path], benchmark: str, rounds: int) -> dict[str, Any]:
    """Returns by figure the medians of both checkouts, their ratio, and the spread of the older one's rounds."""
    seen: dict[str, dict[str, list[float]]] = {name: {} for name in checkouts}
    for round_ in range(rounds):
        for name in list(checkouts)[:: -1 if round_ % 2 else 1]:
            for figure, value_ms in run(checkouts[name], benchmark).items():
                seen[name].setdefault(figure, []).append(value_ms)
    found: dict[str, Any] = {}
    for figure in FIGURES[benchmark]:
        before, after = seen["before"][figure], seen["after"][figure]
        found[figure] = {
            "before_ms": round(statistics.median(before), 3),
            "after_ms": round(statistics.median(after), 3),
            "ratio": round(statistics.median(after) / statistics.median(before), 3),
            "spread_before": round(max(before) / min(before), 3),
        }
    return found


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("before", type=Path, help="the older checkout")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each benchmark in each checkout; default: 3")
    parser.add_argument(
        "--only", nargs="+", choices=list(FIGURES), default=list(FIGURES), help="these benchmarks alone"
    )
    args = parser.parse_args()
    checkouts = {"before": args.before.resolve(), "after": HERE}
    result = {
        "rounds": args.rounds,
        "before": commit_of(checkouts["before"]),
        "benchmarks": {benchmark: compare(checkouts, benchmark, args.rounds) for benchmark in args.only},
    }
    record.write("before_after", result, args.out)


if __name__ == "__main__":
    main()
