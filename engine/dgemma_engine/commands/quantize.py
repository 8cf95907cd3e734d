"""`dgemma-engine quantize`: a plain model folder to a smaller one, with a table of what it cost in accuracy."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dgemma_engine.commands.conversion_progress import progress, require_folder, require_torch, say_result
from dgemma_engine.ipc.endpoint_options import model_name

_FORMATS = ("int8", "int4", "fp8", "nvfp4")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.add_argument("source", type=model_name, metavar="SRC", help="plain model folder, or `tiny`")
    parser.add_argument("place", type=Path, metavar="DST", help="folder to write; must be new or empty")
    parser.add_argument(
        "--format",
        choices=_FORMATS,
        required=True,
        help="weight format: 8 or 4 bits, integers or floats",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        WrongUsage: the source is not there, or is a GGUF file.
        EngineError: the source cannot be used or the place not be written; nothing is left at the place.
    """
    require_torch()
    source = require_folder(arguments.source, "quantised")
    from dgemma_engine.checkpoint.quantization_presets import Format
    from dgemma_engine.tools.conversion.converter import quantise_folder

    converted, errors = quantise_folder(
        source, arguments.place, Format(arguments.format), report=progress("quantising")
    )
    sys.stdout.writelines(f"{line}\n" for line in errors.table())
    say_result(arguments.place, converted)
    return 0
