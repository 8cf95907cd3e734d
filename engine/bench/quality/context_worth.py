"""What text from other files is worth: holes of whole projects, filled with and without what the server collects.

    python engine/bench/quality/context_worth.py PACKAGE... --answers FOLDER

Cuts holes into each package folder with `dgemma-engine holes`, opens up to 20 files of the hole's own folder in an
order drawn by the hole (the last one visited last), lets the server's collector choose, and runs `dgemma-engine eval`
once per variant. The workspace holds the package and nothing else. Recent edits play no part: a hole has no history.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
from dgemma_engine.syntax.definitions import DefinitionFinder
from infilling import compared, evaluated
from workspace import Workspace

from dgemma_lsp.context.collector import CollectedContext, CollectorLimits

UNHURRIED = CollectorLimits(budget_ms=60_000, patience_ms=60_000)
VARIANTS = {
    "without": replace(UNHURRIED, num_chunks=0, definition_chars=0),
    "gathered": UNHURRIED,
    "windows": replace(UNHURRIED, definition_chars=0),
    "definitions": replace(UNHURRIED, num_chunks=0),
    "with_echoes": replace(UNHURRIED, most_similar=1.0),
}
NUM_OPEN = 20


def main() -> None:
    """Runs all variants; prints one line for each, the whole result last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=30, help="holes of each kind and package (default: 30)")
    record.add_destination(parser)
    parser.add_argument("--answers", type=Path, required=True, help="folder for holes and single answers")
    args = parser.parse_args()
    args.answers.mkdir(parents=True, exist_ok=True)
    holes: dict[str, list[dict[str, Any]]] = {name: [] for name in VARIANTS}
    gather_ms: list[float] = []
    for package in args.packages:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder).resolve()
            shutil.copytree(package, root / package.name, symlinks=True)
            for hole in cut(root / package.name, args.answers / "holes.jsonl", args.count):
                for name, limits in VARIANTS.items():
                    started_s = time.perf_counter()
                    gathered = asyncio.run(gather(root, package.name, hole, limits))
                    if name == "gathered":
                        gather_ms.append((time.perf_counter() - started_s) * 1e3)
                    snippets = [{"path": snippet.path, "text": snippet.text} for snippet in gathered.snippets]
                    holes[name].append(hole | {"task_id": f"{package.name}/{hole['task_id']}", "snippets": snippets})
        print(package.name, len(holes["without"]), file=sys.stderr, flush=True)
    result: dict[str, Any] = {
        "packages": [package.name for package in args.packages],
        "open_files_most": NUM_OPEN,
        "holes": len(holes["without"]),
        "holes_with_snippets": sum(bool(hole["snippets"]) for hole in holes["gathered"]),
        "cold_gather_ms_median": round(median(gather_ms), 1),
        "variants": {},
        "pairs": {},
    }
    for name in VARIANTS:
        path = args.answers / f"holes_{name}.jsonl"
        path.write_text("".join(json.dumps(hole) + "\n" for hole in holes[name]), encoding="utf-8")
        result["variants"][name] = evaluated(path, args.answers / f"{name}.jsonl", "--no-silence")
    for first, second in (
        ("gathered", "without"),
        ("windows", "without"),
        ("definitions", "without"),
        ("with_echoes", "gathered"),
    ):
        result["pairs"][f"{first} over {second}"] = compared(args.answers, first, second)
    record.write("context_worth", result, args.out)


def cut(package: Path, path: Path, count: int) -> list[dict[str, Any]]:
    """Returns the same holes for the same package, as rows of `dgemma-engine holes`."""
    options = ("--count", str(count), "--kinds", "line", "rest", "--seed", "1")
    command = [sys.executable, "-m", "dgemma_engine", "holes", str(package), "--out", str(path), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def gather(root: Path, package: str, hole: dict[str, Any], limits: CollectorLimits) -> CollectedContext:
    """Returns what the server collects at a hole."""
    path = root / package / hole["path"]
    others = sorted(file for file in path.parent.glob("*.py") if file != path)
    Random(hole["task_id"]).shuffle(others)
    workspace = Workspace(root, DefinitionFinder(), limits)
    workspace.open(others[:NUM_OPEN])
    _, gathered = await workspace.gather(path, hole["prefix"] + hole["suffix"], len(hole["prefix"]))
    return gathered


if __name__ == "__main__":
    main()
