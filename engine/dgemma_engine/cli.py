"""`dgemma-engine`: turns a command line into one subcommand's exit code, and every known fault into one line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dgemma_engine import __version__
from dgemma_engine.commands import export, models, plan, pull, quantize, rm, start, status, stop
from dgemma_engine.errors import EngineError, WrongUsage
from dgemma_engine.ipc.private_files import keep_own_rights
from dgemma_engine.terminal import run_program, say_error
from dgemma_engine.tools.calibration import calibrate_command
from dgemma_engine.tools.corpus import corpus_command
from dgemma_engine.tools.evaluation import compare_command, eval_command, holes_command
from dgemma_engine.tools.training import train_command

_NAME = "dgemma-engine"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Args:
        argv: arguments without the program's name; None are the process's own.

    Returns:
        The exit code: 0 done, 1 a fault (one line on standard error), 2 wrong usage, 3 no engine runs.
    """

    def run() -> int:
        keep_own_rights()
        arguments = _parser().parse_args(argv)
        try:
            return arguments.run(arguments)
        except EngineError as error:
            say_error(_NAME, str(error))
            return 2 if isinstance(error, WrongUsage) else 1

    return run_program(_NAME, run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dgemma-engine", description="The resident engine of dgemma-lsp.")
    parser.add_argument("--version", action="version", version=f"dgemma-engine {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    training = (corpus_command, train_command)
    evaluation = (holes_command, eval_command, compare_command, calibrate_command)
    conversion = (quantize, export, plan)
    for command in (start, stop, status, pull, models, rm, *training, *evaluation, *conversion):
        command.add_parser(subparsers)
    return parser
