"""The options that say which engine a command is about, and the location they stand for."""

from __future__ import annotations

import argparse
import os
import re

from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.model_store.catalogue import DEFAULT_MODEL, OLD_NAMES, renamed
from dgemma_engine.model_store.choice import choose_model
from dgemma_engine.terminal import say_error

_NAME = "dgemma-engine"


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--model` and `--device`; `model` is None where the user names none."""
    parser.add_argument(
        "--model",
        type=model_name,
        metavar="MODEL",
        help=f"short name, folder or GGUF file (default: {DEFAULT_MODEL}, or tiny until that is fetched)",
    )
    parser.add_argument(
        "--device",
        type=device_name,
        default="auto",
        help="auto, cpu, cuda or cuda:N: where the model runs (default: auto)",
    )


def chosen_location(arguments: argparse.Namespace) -> EngineLocation:
    """Returns where the engine of these options lives.

    Raises:
        SocketRefused: the location cannot be used.
    """
    model = choose_model(arguments.model, os.environ).runs
    return EngineLocation.locate(os.environ, model=model, device=arguments.device)


def model_name(text: str) -> str:
    """Returns the name of a model on a command line; says on standard error what an old short name is called now."""
    if notice := renamed(text):
        say_error(_NAME, notice)
    return OLD_NAMES.get(text, text)


def device_name(text: str) -> str:
    """Returns the name of a device on a command line, checked."""
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", text) is None:
        raise argparse.ArgumentTypeError(f"{text} must be auto, cpu, cuda or cuda:N")
    return text
