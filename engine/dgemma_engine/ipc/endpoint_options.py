"""The options that say which engine a command is about, and the location they stand for."""

from __future__ import annotations

import argparse
import os
import re

from dgemma_engine.ipc.endpoint import EMBEDDED, EngineLocation


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--model` and `--device`."""
    parser.add_argument(
        "--model", default=EMBEDDED, metavar="PATH", help="folder, GGUF file or short name (default: embedded)"
    )
    parser.add_argument(
        "--device", type=_device, default="auto", help="auto, cpu, cuda or cuda:N: where the model runs (default: auto)"
    )


def chosen_location(arguments: argparse.Namespace) -> EngineLocation:
    """Returns where the engine of these options lives.

    Raises:
        SocketRefused: the location cannot be used.
    """
    return EngineLocation.locate(os.environ, model=arguments.model, device=arguments.device)


def _device(text: str) -> str:
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", text) is None:
        raise argparse.ArgumentTypeError(f"{text} must be auto, cpu, cuda or cuda:N")
    return text
