"""`dgemma-engine plan`: what a model needs of a device's memory, before a byte of its weights is read or fetched."""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dgemma_engine.argument_numbers import positive
from dgemma_engine.commands.conversion_progress import require_torch
from dgemma_engine.ipc.endpoint_options import model_name
from dgemma_engine.model_store.choice import choose_model
from dgemma_engine.model_store.entry import Entry

if TYPE_CHECKING:
    from dgemma_engine.families.checkpoint_facts import CheckpointFacts

_FORMATS = ("plain", "int8", "int4", "fp8", "nvfp4")
_GIB = 2**30
# More than any card or machine has.
_MOST_GIB = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.add_argument(
        "model",
        type=model_name,
        metavar="MODEL",
        help="short name, also of a model that is not fetched yet; GGUF file; model folder (its config.json is enough)",
    )
    parser.add_argument(
        "--format",
        choices=_FORMATS,
        help="format that the weights would be quantised to (default: the weights as they are)",
    )
    parser.add_argument(
        "--context", type=positive, metavar="N", help="tokens of a prompt (default: 8192, or all the model can)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--memory", type=_gib, metavar="GIB", help="plan for a card with this much free memory")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        WrongUsage: there is no such model.
        CheckpointError: the configuration cannot be read, or the model does not fit.
    """
    require_torch()
    import torch

    from dgemma_engine.checkpoint.quantization_presets import Format
    from dgemma_engine.families.family import PlanOptions
    from dgemma_engine.families.registry import family_of
    from dgemma_engine.model.devices import free_memory, pick_device

    if arguments.memory is None:
        device = pick_device(arguments.device)
        where, free_bytes = str(device), free_memory(device)
    else:
        # The device is not queried, so that a card can be planned for on a machine without one.
        device, where, free_bytes = torch.device("cuda"), "such a card", int(arguments.memory * _GIB)
    missing = choose_model(arguments.model, os.environ).missing
    facts = _facts(arguments.model, missing)
    name = arguments.format or ("plain" if missing is None else missing.weight_format)
    form = None if name == "plain" else Format(name)
    options = PlanOptions(device=device, weight_format=form, context_tokens=arguments.context)
    plan = family_of(facts).plan(facts, options)
    sys.stdout.writelines(f"{line}\n" for line in plan.table())
    sys.stdout.write(f"{'free on ' + where:44} {plan.shown(free_bytes):>12}\n")
    plan.require(free_bytes, where)
    sys.stdout.write("it fits\n")
    return 0


def _gib(text: str) -> float:
    try:
        gib = float(text)
    except ValueError:
        gib = math.nan
    if not 0 < gib <= _MOST_GIB:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of GiB, more than 0 and at most {_MOST_GIB:,}")
    return gib


def _facts(model: str, missing: Entry | None) -> CheckpointFacts:
    """Returns the facts of the model without its weights: from its files, or for a missing one from its dimensions."""
    from dgemma_engine.checkpoint.builtin import model_folder, require_place
    from dgemma_engine.families.checkpoint_facts import CheckpointFacts, read_facts

    if missing is None:
        require_place(model)
        return read_facts(model_folder(model))
    sys.stdout.write(f"{missing.name} is not there yet; this is planned from its dimensions; {missing.remedy}\n")
    return CheckpointFacts.of_config(Path(missing.name), missing.config, missing.family)
