"""`dgemma-engine adapt`: trains an adapter that teaches a Llama to fill holes, within a budget of minutes."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from dgemma_engine.argument_numbers import above_zero, not_negative, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.add_argument("--base", default="small", metavar="MODEL", help="short name or GGUF file (default: small)")
    parser.add_argument("--corpus", type=Path, required=True, metavar="FILE", help="made by `corpus-packages`")
    parser.add_argument("--out", type=Path, default=Path("adapter"), metavar="DIR", help="folder (default: adapter)")
    parser.add_argument("--minutes", type=above_zero, required=True, metavar="N", help="minutes of this call")
    parser.add_argument("--resume", action="store_true", help="continue from the state in --out")
    parser.add_argument("--threads", type=positive, metavar="N", help="processor threads (default: torch's choice)")
    parser.add_argument("--rank", type=positive, default=32, metavar="N", help="of the adapter (default: 32)")
    parser.add_argument("--rate", type=above_zero, default=7e-4, metavar="X", help="step size (default: 7e-4)")
    parser.add_argument("--seed", type=not_negative, default=0, metavar="N", help="of the samples (default: 0)")
    parser.add_argument("--documents", type=positive, metavar="N", help="documents a step (default: 1, on a card 8)")
    parser.add_argument(
        "--holes", type=positive, default=48, metavar="N", help="most holes in a document (default: 48)"
    )
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to train (default: auto)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        EngineError: training cannot start or go on.
    """
    import torch

    from dgemma_engine.checkpoint.builtin import model_folder, require_model
    from dgemma_engine.errors import TrainingError
    from dgemma_engine.model.devices import pick_device
    from dgemma_engine.tools.adaptation.adapted_base import AdaptedBase
    from dgemma_engine.tools.adaptation.config import AdaptConfig, OptimizerConfig, SampleConfig
    from dgemma_engine.tools.adaptation.sources import AdaptSources
    from dgemma_engine.tools.adaptation.trainer import AdaptTrainer
    from dgemma_engine.tools.corpus.source_lines import SourceCorpus
    from dgemma_engine.tools.training.checkpoint import STATE
    from dgemma_engine.tools.training.signals import first_signal

    if not arguments.resume and any((arguments.out / name).exists() for name in (STATE, "causal.safetensors")):
        raise TrainingError(f"{arguments.out} holds a run already; use --resume to go on, or another --out")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    require_model(arguments.base)
    device = pick_device(arguments.device)
    is_card = device.type == "cuda"
    documents = arguments.documents if arguments.documents is not None else 8 if is_card else 1
    config = AdaptConfig(
        rank=arguments.rank,
        seed=arguments.seed,
        samples=SampleConfig(documents=documents, holes=arguments.holes),
        optimizer=OptimizerConfig(rate=arguments.rate),
        # A card waits for samples where a processor makes them between its steps.
        num_workers=min(8, os.cpu_count() or 1) if is_card else 0,
    )
    corpus = SourceCorpus.load(arguments.corpus)
    trainer = AdaptTrainer(
        config,
        base=AdaptedBase(model_folder(arguments.base), rank=config.rank, device=device, seed=config.seed),
        sources=AdaptSources.of_corpus(corpus, python_weight=config.samples.python_weight),
        out=arguments.out,
        device=device,
        clock=time.monotonic,
        report=_say,
    )
    if arguments.resume:
        trainer.resume()
    try:
        trainer.run(arguments.minutes, interrupted=first_signal())
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "the card has too little memory for a step; lower --documents or --holes, and use --resume to go on"
        ) from error
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
