"""`dgemma-engine fill`: solves the rows of a task with a model, and counts how many answers are right."""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from dgemma_engine.argument_numbers import positive
from dgemma_engine.errors import WrongUsage
from dgemma_engine.ipc.endpoint_options import model_name
from dgemma_engine.model_store.catalogue import DEFAULT_MODEL

if TYPE_CHECKING:
    from dgemma_engine.tools.tasks.measured import Solved

_NUM_STEPS = 48


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.add_argument("--task", type=Path, required=True, metavar="FILE", help="rows of the task, JSON lines")
    parser.add_argument(
        "--model", type=model_name, default=DEFAULT_MODEL, metavar="MODEL",
        help=f"short name, GGUF file or model folder (default: {DEFAULT_MODEL})",
    )  # fmt: skip
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="what `tune --task` wrote for that model")
    parser.add_argument(
        "--steps", type=positive, default=_NUM_STEPS, metavar="N", help=f"most denoising steps (default: {_NUM_STEPS})"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--fixed", dest="mode", action="store_const", const="fixed", help="make all steps, also of a settled row"
    )
    how.add_argument(
        "--frozen", dest="mode", action="store_const", const="frozen", help="never replace a token once accepted"
    )
    how.add_argument(
        "--left-to-right", dest="mode", action="store_const", const="left_to_right", help="write token after token"
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="solve the first N rows")
    parser.add_argument("--json", action="store_true", help="print a JSON object for each row too")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N: where to run")
    parser.set_defaults(run=run, mode="adaptive")


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        WrongUsage: the model, the task or the adapter does not exist.
        EngineError: the task, the model or the adapter cannot be used.
    """
    from dgemma_engine.checkpoint.builtin import model_folder, require_model
    from dgemma_engine.model.devices import pick_device
    from dgemma_engine.tools.tasks.measured import TaskFigures, solve_rows
    from dgemma_engine.tools.tasks.solver import Solver
    from dgemma_engine.tools.tasks.task_model import TaskModel
    from dgemma_engine.tools.tasks.task_rows import read_rows

    require_model(arguments.model)
    # What cannot be read is reported before a model is loaded.
    if arguments.adapter is not None and not arguments.adapter.is_dir():
        raise WrongUsage(f"{arguments.adapter}: is no folder; name the folder of a task's adapter")
    rows = list(islice(read_rows(arguments.task), arguments.limit))
    model = TaskModel.load(model_folder(arguments.model), pick_device(arguments.device), arguments.adapter)
    solver = Solver(model, num_steps=arguments.steps, mode=arguments.mode)
    figures, started_s = TaskFigures(), time.monotonic()
    for solved in solve_rows(rows, model.tokenizer, solver):
        figures = figures.plus(solved)
        text = "".join(model.tokenizer.texts(solved.row, solved.tokens, solved.solution.ids))
        _print(json.dumps(_row(text, solved)) if arguments.json else text)
    spent_s = round(time.monotonic() - started_s, 3)
    _print(json.dumps({"command": "fill", "mode": arguments.mode, **figures.to_json(), "seconds": spent_s}))
    return 0


def _row(text: str, solved: Solved) -> dict[str, object]:
    return {"text": text, "right": solved.is_right, "steps": solved.solution.steps}


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
