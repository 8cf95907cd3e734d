"""Sudoku solved by models that learnt it: share solved by number of clues, steps, self-correction, left to right.

    python engine/bench/quality/sudoku.py --run RUN [--tuned FILE] [--puzzles N] [--seed N]

`--run` is the folder of `dgemma-engine train ... --task`; `--tuned` is the output of `dgemma-engine tune --task --json`
for `small`. Puzzles are made from other grids than those of engine/examples/sudoku/README.md.
Every puzzle is solved in each mode by the same weights: until the canvas settles, in 48 steps, with accepted tokens
final, and from left to right.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies
sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "sudoku"))  # and the puzzles

import generate
import puzzles
import record
import torch
from dgemma_engine.tools.tasks.measured import Solved, TaskFigures, solve_rows
from dgemma_engine.tools.tasks.solver import MODES, Mode, Solver
from dgemma_engine.tools.tasks.task_model import TaskModel
from dgemma_engine.tools.tasks.task_rows import Part, TaskRow

NUM_STEPS = 48
CLUES = (24, 27, 30, 31, 32, 33, 34, 35, 36, 40, 50)
TARGET = range(30, 37)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, metavar="DIR", help="folder of `train --task`; its model `latest` solves")
    parser.add_argument("--tuned", type=Path, metavar="FILE", help="what `tune --task --json` printed for `small`")
    parser.add_argument("--puzzles", type=int, default=50, help="for each number of clues (default: 50)")
    parser.add_argument("--seed", type=int, default=20_000, help="of the puzzles (default: 20000)")
    record.add_destination(parser)
    arguments = parser.parse_args()
    if arguments.run is None and arguments.tuned is None:
        parser.error("name what was trained with --run or --tuned")
    torch.set_num_threads(1)
    models = dict[str, Any]()
    if arguments.tuned is not None:
        models["small"] = json.loads(arguments.tuned.read_text(encoding="utf-8").splitlines()[-1])
    if arguments.run is not None:
        model = TaskModel.load(arguments.run / "latest", torch.device("cpu"))
        tasks = drawn(arguments.puzzles, arguments.seed)
        models["random_weights"] = training_of(arguments.run) | measured(model, tasks)
    result = {
        "num_steps": NUM_STEPS,
        "puzzles_for_each_number_of_clues": arguments.puzzles,
        "seed": arguments.seed,
        "threads": 1,
        "models": models,
    }
    record.write("sudoku", result, arguments.out)


def drawn(count: int, seed: int) -> dict[int, list[TaskRow]]:
    """Returns puzzles by their number of clues."""
    return {
        clues: [
            row_of(puzzle) for puzzle in puzzles.puzzles(count, fewest_clues=clues, most_clues=clues, seed=seed + clues)
        ]
        for clues in CLUES
    }


def row_of(puzzle: puzzles.Puzzle) -> TaskRow:
    parts = [
        Part("given" if kind == "given" else "free", text)
        for part in generate.parts(puzzle)
        for kind, text in part.items()
    ]
    return TaskRow(tuple(parts), f"a puzzle with {puzzle.num_clues} clues")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A mode's answers to the puzzles of one number of clues."""

    solved: tuple[Solved, ...]
    seconds: float


def measured(model: TaskModel, tasks: dict[int, list[TaskRow]]) -> dict[str, Any]:
    """Solves every puzzle in every mode."""
    by_clues, results = dict[str, dict[str, Any]](), dict[tuple[int, Mode], Result]()
    for clues, rows in tasks.items():
        for mode in MODES:
            started_s = time.perf_counter()
            solver = Solver(model, num_steps=NUM_STEPS, mode=mode)
            solved = tuple(solve_rows(rows, model.tokenizer, solver))
            results[clues, mode] = Result(solved=solved, seconds=time.perf_counter() - started_s)
        by_clues[str(clues)] = {mode: figures([results[clues, mode]]) for mode in MODES}
        print(clues, json.dumps(by_clues[str(clues)]), flush=True)
    target = {mode: figures([results[clues, mode] for clues in TARGET]) for mode in MODES}
    return {"clues_30_to_36": target, "by_clues": by_clues, "self_correction": correction(results)}


def figures(results: Sequence[Result]) -> dict[str, Any]:
    sums = TaskFigures()
    for result in results:
        for one in result.solved:
            sums = sums.plus(one)
    seconds = sum(result.seconds for result in results)
    return sums.to_json() | {"seconds_a_puzzle": round(seconds / max(1, sums.rows), 3)}


def correction(results: dict[tuple[int, Mode], Result]) -> dict[str, int]:
    """Returns how many of all puzzles both of the modes adaptive and frozen solve, and how many only one of them."""
    pairs = [
        (one.is_right, other.is_right)
        for clues in CLUES
        for one, other in zip(results[clues, "adaptive"].solved, results[clues, "frozen"].solved, strict=True)
    ]
    return {
        "puzzles": len(pairs),
        "solved_by_both": sum(bool(one and other) for one, other in pairs),
        "only_with_correction": sum(bool(one and not other) for one, other in pairs),
        "only_frozen": sum(bool(other and not one) for one, other in pairs),
    }


def training_of(run: Path) -> dict[str, Any]:
    """Returns how a model was trained, and its shape."""
    curves: dict[str, Any] = json.loads((run / "curves.json").read_text(encoding="utf-8"))
    config: dict[str, Any] = json.loads((run / "latest" / "config.json").read_text(encoding="utf-8"))
    last, text = curves["points"][-1], config["text_config"]
    shape = (
        "hidden_size", "intermediate_size", "moe_intermediate_size", "num_experts", "num_attention_heads", "head_dim",
        "sliding_window", "vocab_size",
    )  # fmt: skip
    return {
        "training": {key: last[key] for key in ("minutes", "step", "holes", "tokens")},
        "held_out": curves["evaluations"][-1] if curves["evaluations"] else None,
        "model": {key: text[key] for key in shape} | {"layer_types": text["layer_types"]},
        "parameters": num_parameters(run / "latest"),
    }


def num_parameters(folder: Path) -> int:
    from safetensors import safe_open

    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            total += sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118, no mapping
    return total


if __name__ == "__main__":
    main()
