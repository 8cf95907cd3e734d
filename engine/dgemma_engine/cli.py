"""`dgemma-engine`: turns a command line into one subcommand's exit code, and every known fault into one line.

Imports the module of the chosen subcommand only: starting the engine loads no tool, and a tool loads no socket.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from dgemma_engine import __version__
from dgemma_engine.errors import EngineError, Interrupted, PortInUse, WrongUsage
from dgemma_engine.private_files import keep_own_rights
from dgemma_engine.terminal import INTERRUPTED, run_program, say_error

_NAME = "dgemma-engine"
# Subcommand -> the module that adds its arguments and sets what runs it, and its line in the help.
_COMMANDS = {
    "start": ("commands.start", "start the engine unless it is running"),
    "stop": ("commands.stop", "stop the engine"),
    "status": ("commands.status", "print the state of the engine"),
    "serve": ("commands.serve", "answer editors over HTTP"),
    "pull": ("commands.pull", "fetch a model by its short name, or one of the hub"),
    "models": ("commands.models", "list the models with a short name"),
    "rm": ("commands.rm", "remove a fetched model"),
    "corpus": ("tools.corpus.corpus_command", "collect Python files to train on"),
    "corpus-packages": (
        "tools.corpus.registries.corpus_packages_command",
        "collect files of seven languages from package registries",
    ),
    "train": ("tools.training.train_command", "train a model on a corpus"),
    "adapt": ("tools.adaptation.adapt_command", "train an adapter that teaches a Llama to fill holes"),
    "tune": ("tools.tuning.tune_command", "learn a repository, to complete it better"),
    "adapters": ("commands.adapters", "list, remove or switch off what tune has learnt"),
    "fill": ("tools.tuning.task.fill_command", "solve the rows of a task"),
    "holes": ("tools.evaluation.holes_command", "cut holes into source files, for eval"),
    "eval": ("tools.evaluation.eval_command", "measure how well a model fills holes"),
    "compare": ("tools.evaluation.compare_command", "compare two evaluations of the same holes"),
    "calibrate": ("tools.calibration.calibrate_command", "fit a model's scores to the probability of being right"),
    "quantize": ("commands.quantize", "write a model folder with smaller weights"),
    "export": ("commands.export", "write a model folder for transformers"),
    "plan": ("commands.plan", "print whether a model fits a device"),
}
# Commands that need the engine's socket or locks, which Windows lacks, or that serve an engine there.
_LOCAL_COMMANDS = ("start", "stop", "status", "serve", "pull")
_ON_WINDOWS = (
    "{command}: the engine does not run on Windows itself; run this in WSL, or set engine.url to an engine on another "
    "machine"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Args:
        argv: arguments without the program's name; None are the process's own.

    Returns:
        The exit code: 0 done, 1 a fault (one line on standard error), 2 wrong usage, 3 no engine runs, or
        another program has the port of `serve`, 130 the user ended the command.
    """

    def run() -> int:
        keep_own_rights()
        given = sys.argv[1:] if argv is None else argv
        if sys.platform == "win32" and (chosen := _chosen(given)) in _LOCAL_COMMANDS:
            say_error(_NAME, _ON_WINDOWS.format(command=chosen))
            return 2
        arguments = _parser(given).parse_args(given)
        try:
            return arguments.run(arguments)
        except EngineError as error:
            say_error(_NAME, str(error))
            if isinstance(error, PortInUse):
                return 3
            if isinstance(error, Interrupted):
                return INTERRUPTED
            return 2 if isinstance(error, WrongUsage) else 1

    return run_program(_NAME, run)


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Returns the parser, with the arguments of the subcommand that `argv` names."""
    parser = argparse.ArgumentParser(prog=_NAME, description="The resident engine of dgemma-lsp.")
    parser.add_argument("--version", action="version", version=f"{_NAME} {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    chosen = _chosen(argv)
    for name, (module_name, summary) in _COMMANDS.items():
        if name == chosen:
            module = import_module(f"dgemma_engine.{module_name}")
            module.add_arguments(subparsers.add_parser(name, help=summary, description=module.__doc__))
        else:
            subparsers.add_parser(name, help=summary)
    return parser


def _chosen(argv: Sequence[str]) -> str | None:
    return next((argument for argument in argv if not argument.startswith("-")), None)
