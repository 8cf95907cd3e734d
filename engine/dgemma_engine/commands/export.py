"""`dgemma-engine export`: any model folder to a plain one that `transformers` loads, with the same logits."""

from __future__ import annotations

import argparse
from pathlib import Path

from dgemma_engine.commands.conversion_progress import progress, require_folder, require_torch, say_result
from dgemma_engine.ipc.endpoint_options import model_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.add_argument("source", type=model_name, metavar="SRC", help="model folder, quantised or not, or `tiny`")
    parser.add_argument("place", type=Path, metavar="DST", help="folder to write; must be new or empty")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        default="bfloat16",
        help="format of the weights; float32 keeps quantised weights exact (default: bfloat16)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        WrongUsage: the source is not there, or is a GGUF file.
        EngineError: the source cannot be used or the place not be written; nothing is left at the place.
    """
    require_torch()
    source = require_folder(arguments.source, "exported")
    import torch

    from dgemma_engine.tools.conversion.converter import export_folder

    dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32}[arguments.dtype]
    converted = export_folder(source, arguments.place, dtype, report=progress("exporting"))
    say_result(arguments.place, converted)
    return 0
