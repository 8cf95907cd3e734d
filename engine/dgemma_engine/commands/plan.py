"""`dgemma-engine plan`: what a model needs of a device's memory, before a byte of its weights is read."""

from __future__ import annotations

import argparse
import sys

from dgemma_engine.commands.conversion_progress import require_torch

_CONTEXT = 8_192
_FORMATS = ("plain", "int8", "int4", "fp8", "nvfp4")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.add_argument("model", metavar="MODEL", help="model folder (its config.json is enough), or `embedded`")
    parser.add_argument(
        "--format", choices=_FORMATS, default="plain", help="of its weights, as `quantize` makes it (default: plain)"
    )
    parser.add_argument(
        "--context", type=int, metavar="N", help=f"tokens of a prompt (default: {_CONTEXT}, or all the model can)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--memory", type=float, metavar="GIB", help="plan for a card with this much free memory")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        CheckpointError: the configuration cannot be read, or the model does not fit.
    """
    require_torch()
    from dgemma_engine.backends.memory_plan import GIB, memory_plan
    from dgemma_engine.checkpoint.builtin import model_folder
    from dgemma_engine.checkpoint.quantization_presets import Format
    from dgemma_engine.errors import CheckpointError
    from dgemma_engine.model.config import ModelConfig
    from dgemma_engine.model.devices import free_memory, pick_device

    if arguments.memory is not None and arguments.memory <= 0:
        raise CheckpointError(f"--memory {arguments.memory} must be more than 0 GiB")
    device = pick_device("cpu" if arguments.memory is not None else arguments.device)
    config = ModelConfig.load(model_folder(arguments.model))
    context_tokens = arguments.context
    plan = memory_plan(
        config,
        weight_format=None if arguments.format == "plain" else Format(arguments.format),
        context_tokens=min(_CONTEXT, config.max_position_embeddings) if context_tokens is None else context_tokens,
        device_type="cuda" if arguments.memory is not None else device.type,
    )
    sys.stdout.writelines(f"{line}\n" for line in plan.table())
    if arguments.memory is not None:
        plan.require(int(arguments.memory * GIB), "such a card")
    else:
        plan.require(free_memory(device), str(device))
    sys.stdout.write("it fits\n")
    return 0
