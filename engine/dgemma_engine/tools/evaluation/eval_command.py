"""`dgemma-engine eval`: fills the holes of a file and prints how well, per kind of hole and overall."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgemma_engine.argument_numbers import not_negative, positive
from dgemma_engine.errors import EngineUnavailable, FormatError
from dgemma_engine.infill.options import Decode, InfillOptions
from dgemma_engine.ipc.endpoint_options import add_engine_options
from dgemma_engine.model_store.choice import choose_model
from dgemma_engine.tools.evaluation.arguments import length
from dgemma_engine.tools.evaluation.length import Length
from dgemma_engine.tools.evaluation.output_file import require_apart

if TYPE_CHECKING:
    from dgemma_engine.tools.evaluation.filling import Filler, LoadedEngine
    from dgemma_engine.tools.evaluation.holes.task import Task
    from dgemma_engine.tools.evaluation.sandbox.execution import Executor

_COPY = "copy"
# The longest a `Context` may wait.
_MOST_MS = 600_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.add_argument(
        "holes", type=Path, metavar="HOLES", help="file of `holes`, HumanEval-Infilling or SantaCoder-FIM"
    )
    add_engine_options(parser)
    decodes = [*(decode.value for decode in Decode), _COPY]
    parser.add_argument("--decode", choices=decodes, default="all", help="copy needs no model (default: all)")
    parser.add_argument(
        "--length", type=length, default=Length(), metavar="HOW", help="auto, oracle or fixed:N tokens (default: auto)"
    )
    parser.add_argument("--no-seeds", action="store_true", help="propose no text found elsewhere")
    parser.add_argument("--no-forks", action="store_true", help="write one candidate from left to right, not two")
    parser.add_argument("--no-fill", action="store_true", help="do not use the checkpoint's fill token")
    parser.add_argument("--no-silence", action="store_true", help="show answers of any score")
    parser.add_argument(
        "--execute",
        action="store_true",
        help="run the tests of the holes: executes code that a model wrote",
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="at most N holes, evenly spread over the file")
    parser.add_argument(
        "--deadline-ms", type=_deadline_ms, default=60_000, metavar="N", help="time for one answer (default: 60000)"
    )
    parser.add_argument("--seed", type=not_negative, default=0, metavar="N", help="seed of random draws (default: 0)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write every answer to this .jsonl, for `compare`")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the last line to this file as well")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        EngineError: the holes cannot be read, the engine not be loaded, or a file not be written.
    """
    _require("numpy")
    from dgemma_engine.tools.evaluation.holes.hole_files import read_tasks
    from dgemma_engine.tools.evaluation.measuring import measure
    from dgemma_engine.tools.evaluation.result_files import open_results, require_writable, write_result

    outputs = [path for path in (arguments.out, arguments.json) if path is not None]
    require_apart(outputs, [arguments.holes])
    tasks = _spread(read_tasks(arguments.holes), arguments.limit)
    executor = _executor(tasks) if arguments.execute else None
    # Before the model is loaded and asked: what cannot be written is known at once.
    for path in outputs:
        require_writable(path)
    # Older results are kept until there is something to put in their place.
    engine = None if arguments.decode == _COPY else _load(arguments)
    with open_results(arguments.out) as results:
        measured = measure(
            tasks,
            _filler(arguments, engine),
            seed=arguments.seed,
            executor=executor,
            results=results,
            clock=time.monotonic,
            report=_say,
        )
    sys.stdout.writelines(f"{line}\n" for line in measured.table())
    result = measured.result(
        holes=arguments.holes.name,
        model=engine.model_name if engine else None,
        device=engine.device if engine else None,
        recipe=_recipe_facts(arguments),
        seed=arguments.seed,
    )
    if arguments.json is not None:
        write_result(arguments.json, result)
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


def _load(arguments: argparse.Namespace) -> LoadedEngine:
    _require("torch")
    from dgemma_engine.checkpoint.builtin import model_folder, require_model
    from dgemma_engine.infill.engine import Engine

    choice = choose_model(arguments.model, os.environ)
    require_model(choice.runs)
    if choice.is_stand_in:
        _say(choice.notice)
    return Engine.load(model_folder(choice.runs), device=arguments.device, report=lambda _percent, _message: None)


def _filler(arguments: argparse.Namespace, engine: LoadedEngine | None) -> Filler:
    from dgemma_engine.tools.evaluation.filling import CopyFiller, EngineFiller

    if engine is None:
        return CopyFiller()
    return EngineFiller(
        engine,
        options=InfillOptions(
            decode=Decode(arguments.decode),
            fill=not arguments.no_fill,
            seeds=not arguments.no_seeds,
            forks=not arguments.no_forks,
            silence=not arguments.no_silence,
        ),
        length=arguments.length,
        deadline_ms=arguments.deadline_ms,
        seed=arguments.seed,
        clock=time.monotonic,
    )


def _recipe_facts(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.decode == _COPY:
        return {"decode": _COPY}
    return {
        "decode": arguments.decode,
        "length": arguments.length.name,
        "fill": not arguments.no_fill,
        "seeds": not arguments.no_seeds,
        "forks": not arguments.no_forks,
        "silence": not arguments.no_silence,
        "deadline_ms": arguments.deadline_ms,
    }


def _executor(tasks: Sequence[Task]) -> Executor:
    from dgemma_engine.tools.evaluation.sandbox.execution import WARNING, Executor, Limits

    if all(task.test is None for task in tasks):
        raise FormatError("--execute: none of the holes has a test; leave it out, or name a HumanEval-Infilling file")
    _say(f"warning: {WARNING}")
    executor = Executor(Limits())
    executor.probe()
    return executor


def _spread(tasks: list[Task], limit: int | None) -> list[Task]:
    """Returns at most `limit` tasks from all over the file: its kinds often stand one after the other."""
    if limit is None or limit >= len(tasks):
        return tasks
    return [tasks[index * len(tasks) // limit] for index in range(limit)]


def _require(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise EngineUnavailable(f"{module} is not installed; run: pip install 'dgemma-lsp[engine]'")


def _deadline_ms(text: str) -> int:
    milliseconds = positive(text)
    if milliseconds > _MOST_MS:
        raise argparse.ArgumentTypeError(f"{text} must be at most {_MOST_MS} (ten minutes)")
    return milliseconds


def _say(line: str) -> None:
    sys.stderr.write(f"dgemma-engine: {line}\n")
    sys.stderr.flush()
