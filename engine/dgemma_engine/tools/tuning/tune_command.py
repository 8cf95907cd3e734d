"""`dgemma-engine tune DIR`: learns a repository, and keeps what it learnt if it completes that repository better."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dgemma_engine.errors import EngineUnavailable, TrainingError, WrongUsage
from dgemma_engine.ipc.endpoint_options import model_name
from dgemma_engine.model_store.catalogue import DEFAULT_MODEL
from dgemma_engine.tools.evaluation.arguments import not_negative

if TYPE_CHECKING:
    from dgemma_engine.tools.tuning.repository.file_split import FileSplit
    from dgemma_engine.tools.tuning.work_clock import WorkClock

_LOWEST_PRIORITY = 19


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the repository")
    parser.add_argument("--minutes", type=_minutes, default=20.0, metavar="N", help="of work in all (default: 20)")
    parser.add_argument("--resume", action="store_true", help="go on with a tuning that was interrupted")
    parser.add_argument("--json", action="store_true", help="print JSON objects: progress, and the result at last")
    parser.add_argument(
        "--model", type=model_name, default=DEFAULT_MODEL, metavar="MODEL",
        help=f"short name or GGUF file (default: {DEFAULT_MODEL})",
    )  # fmt: skip
    parser.add_argument(
        "--private-file", action="append", default=[], metavar="PATTERN",
        help="files never to read, as in the setting dgemma.privateFiles; repeatable",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N: where to train")
    parser.add_argument("--seed", type=not_negative, default=0, metavar="N", help="of holes and samples (default: 0)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code: 0 also where nothing was better and so nothing was installed.

    Raises:
        EngineError: it cannot start or go on; nothing was installed.
    """
    for module in ("torch", "numpy", "psutil"):
        if importlib.util.find_spec(module) is None:
            raise EngineUnavailable(f"{module} is not installed; run: pip install 'dgemma-lsp[engine]'")
    if not arguments.folder.is_dir():
        raise WrongUsage(f"{arguments.folder}: is no folder; name the folder of a repository")
    from dgemma_engine.checkpoint.builtin import model_folder, require_model
    from dgemma_engine.model.devices import pick_device
    from dgemma_engine.repository_adapters.store import AdapterStore, canonical_root
    from dgemma_engine.tools.tuning.training_config import fitting_rank, tune_config
    from dgemma_engine.tools.tuning.tuned_base import TunedBase
    from dgemma_engine.tools.tuning.tuner import Tuner

    require_model(arguments.model)
    root, clock = canonical_root(arguments.folder), _work_clock()
    # Before anything is read: on battery nothing begins.
    if clock.must_stop():
        raise TrainingError(f"not started: {clock.stop_reason}; plug it in")
    split = _split(root, arguments.private_file)
    base = TunedBase.of(model_folder(arguments.model))
    if hasattr(os, "nice"):
        os.nice(_LOWEST_PRIORITY)
    tuner = Tuner(
        root,
        split,
        base,
        tune_config(rank=fitting_rank(base.path, base.merged), seed=arguments.seed),
        store=AdapterStore.locate(os.environ),
        minutes=arguments.minutes,
        device=pick_device(arguments.device),
        clock=clock,
        now=lambda: datetime.now(UTC),
        report=_json_progress() if arguments.json else _progress,
    )
    result = tuner.run(resume=arguments.resume)
    if arguments.json:
        _print(json.dumps(result.to_json()))
    else:
        for name, before, after in result.rows():
            _print(f"{name:<28}{before:>8}{after:>8}")
        _print(result.sentence)
    return 0


def _split(root: Path, private: list[str]) -> FileSplit:
    from dgemma_engine.privacy.file_privacy import FilePrivacy
    from dgemma_engine.tools.tuning.repository.change_times import change_times
    from dgemma_engine.tools.tuning.repository.file_split import FileSplit
    from dgemma_engine.tools.tuning.repository.repository_files import read_repository

    privacy = FilePrivacy(private, home=Path.home(), clock=time.monotonic, report=_say)
    found = read_repository(root, privacy.why_not_read)
    return FileSplit.of(found, change_times(root, [file.path for file in found.files], os.environ))


def _work_clock() -> WorkClock:
    from dgemma_engine.tools.training.signals import first_signal
    from dgemma_engine.tools.tuning.engine_activity import EngineActivity
    from dgemma_engine.tools.tuning.power import is_on_battery
    from dgemma_engine.tools.tuning.work_clock import WorkClock

    return WorkClock(
        clock=time.monotonic,
        sleep=time.sleep,
        is_answering=EngineActivity.of_user(os.environ),
        is_on_battery=is_on_battery,
        is_interrupted=first_signal(),
    )


def _progress(percent: int, line: str) -> None:
    _say(f"{percent:>3} % {line}")


def _json_progress() -> Callable[[int, str], None]:
    last = -1

    def report(percent: int, line: str) -> None:
        nonlocal last
        # A reader has no use for a percentage twice.
        if percent != last:
            last = percent
            _print(json.dumps({"percent": percent, "message": line}))

    return report


def _say(line: str) -> None:
    sys.stderr.write(f"dgemma-engine: {line}\n")
    sys.stderr.flush()


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of minutes above 0")
    return minutes
