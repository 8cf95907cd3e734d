"""`dgemma-engine train`: trains a model on a corpus or on a task within a budget of minutes."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from dgemma_engine.argument_numbers import above_zero, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="TOML file")
    parser.add_argument(
        "--corpus", type=Path, default=Path("corpus"), metavar="DIR", help="made by `corpus` (default: corpus)"
    )
    parser.add_argument("--task", type=Path, metavar="FILE", help="rows of a task to learn in place of a corpus")
    parser.add_argument("--out", type=Path, default=Path("run"), metavar="DIR", help="checkpoint folder (default: run)")
    parser.add_argument("--minutes", type=above_zero, metavar="N", help="minutes to train (default: from CONFIG)")
    parser.add_argument("--resume", action="store_true", help="continue from the state in --out")
    parser.add_argument("--threads", type=positive, metavar="N", help="processor threads (default: torch's choice)")
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to train (default: auto)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        TrainingError: training cannot start or go on.
    """
    import torch

    from dgemma_engine.errors import TrainingError
    from dgemma_engine.model.devices import pick_device
    from dgemma_engine.tools.training.checkpoint import BEST, LATEST, STATE
    from dgemma_engine.tools.training.data.task_data import TaskData
    from dgemma_engine.tools.training.data.training_data import CorpusData
    from dgemma_engine.tools.training.signals import first_signal
    from dgemma_engine.tools.training.train_config import TrainConfig
    from dgemma_engine.tools.training.trainer import Trainer

    config = TrainConfig.load(arguments.config)
    minutes = config.run.minutes if arguments.minutes is None else arguments.minutes
    if not arguments.resume and any((arguments.out / name).exists() for name in (STATE, LATEST, BEST)):
        raise TrainingError(f"{arguments.out} holds a run already; use --resume to go on, or another --out")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    trainer = Trainer(
        config,
        data=CorpusData(arguments.corpus, config) if arguments.task is None else TaskData(arguments.task, config),
        out=arguments.out,
        device=pick_device(arguments.device),
        clock=time.monotonic,
        report=_say,
    )
    if arguments.resume:
        trainer.resume()
    trainer.run(minutes, interrupted=first_signal())
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
