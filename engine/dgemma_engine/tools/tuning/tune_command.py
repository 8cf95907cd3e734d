"""`dgemma-engine tune`: trains an adapter for a repository or a task, and keeps it if it is better."""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dgemma_engine.argument_numbers import not_negative
from dgemma_engine.errors import CannotResume, EngineUnavailable, Interrupted, TrainingError, WrongUsage
from dgemma_engine.ipc.endpoint_options import model_name
from dgemma_engine.model_store.catalogue import DEFAULT_MODEL

if TYPE_CHECKING:
    from dgemma_engine.repository_adapters.training_folder import TrainingFolder
    from dgemma_engine.tools.tuning.repository.file_split import FileSplit
    from dgemma_engine.tools.tuning.task.task_result import TaskResult
    from dgemma_engine.tools.tuning.task.task_tuner import TaskTuner
    from dgemma_engine.tools.tuning.tune_result import TuneResult
    from dgemma_engine.tools.tuning.tuner import Report, Tuner
    from dgemma_engine.tools.tuning.work_clock import WorkClock

MIN_MINUTES = 2.0
"""In less, measuring leaves time for a few steps of training, which learn nothing."""

TRAINING = "training"
"""Folder of an unfinished training, within that of a task's adapter."""

_MINUTES, _SEED = 20.0, 0
_LOWEST_PRIORITY = 19


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="the repository")
    parser.add_argument("--task", type=Path, metavar="FILE", help="rows of a task to learn in place of a repository")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the task's adapter")
    parser.add_argument(
        "--minutes", type=_minutes, metavar="N",
        help=f"of work in all, {MIN_MINUTES:g} or more (default: {_MINUTES:g}, or those of the tuning that goes on)",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on with a tuning that was interrupted")
    parser.add_argument(
        "--resume-if-possible", action="store_true", help="the same, but begin anew and say why where it cannot go on"
    )
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
    parser.add_argument("--seed", type=not_negative, metavar="N", help=f"of holes and samples (default: {_SEED})")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code: 0 also where nothing was better and so nothing was installed.

    Raises:
        EngineError: it cannot start or go on; nothing was installed.
    """
    for module in ("torch", "numpy", "psutil"):
        if importlib.util.find_spec(module) is None:
            raise EngineUnavailable(f"{module} is not installed; run: pip install 'dgemma-lsp[engine]'")
    _require_one_subject(arguments)
    if hasattr(os, "nice"):
        os.nice(_LOWEST_PRIORITY)
    report = _progress(_json_line if arguments.json else _text_line)
    # Until there is something to keep, either signal ends it at once.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        tuner = _tuner(arguments, report) if arguments.task is None else _task_tuner(arguments, report)
    except KeyboardInterrupt:
        raise Interrupted("interrupted before anything was learnt; nothing is changed") from None
    result = _tune(tuner, arguments, report)
    if arguments.json:
        _print(json.dumps(result.to_json()))
    else:
        for name, before, after in result.rows():
            _print(f"{name:<28}{before:>8}{after:>8}")
        _print(result.sentence)
    return 0


def _require_one_subject(arguments: argparse.Namespace) -> None:
    if (arguments.folder is None) == (arguments.task is None):
        raise WrongUsage("name the folder of a repository, or a file of rows with --task FILE")
    if (arguments.task is None) != (arguments.out is None):
        raise WrongUsage("--task FILE and --out DIR belong together: the folder is where the task's adapter goes")
    if arguments.folder is not None and not arguments.folder.is_dir():
        raise WrongUsage(f"{arguments.folder}: is no folder; name the folder of a repository")
    if arguments.task is not None and not arguments.task.is_file():
        raise WrongUsage(f"{arguments.task}: is no file; name a file of task rows, one JSON object a line")


def _task_tuner(arguments: argparse.Namespace, report: Report) -> TaskTuner:
    from dgemma_engine.checkpoint.builtin import model_folder, require_model
    from dgemma_engine.repository_adapters.training_folder import TrainingFolder

    require_model(arguments.model)
    clock = _start_clock()
    if clock.must_stop():
        raise TrainingError(f"not started: {clock.stop_reason}; plug it in")
    training = TrainingFolder(path=arguments.out / TRAINING)
    minutes, seed = _budget(arguments, training)
    from dgemma_engine.model.devices import pick_device
    from dgemma_engine.tools.adaptation.task.canvas_trainer import CanvasConfig
    from dgemma_engine.tools.tuning.task.task_tuner import TaskTuner

    return TaskTuner(
        arguments.task,
        model_folder(arguments.model),
        arguments.out,
        CanvasConfig(seed=seed),
        minutes=minutes,
        device=pick_device(arguments.device),
        clock=_work_clock(),
        now=lambda: datetime.now(UTC),
        report=report,
        training=training,
    )


def _tuner(arguments: argparse.Namespace, report: Report) -> Tuner:
    """Reads the repository and what there is of the base."""
    from dgemma_engine.checkpoint.builtin import model_folder, require_model
    from dgemma_engine.repository_adapters.store import AdapterStore, canonical_root

    require_model(arguments.model)
    root, store, clock = canonical_root(arguments.folder), AdapterStore.locate(os.environ), _start_clock()
    minutes, seed = _budget(arguments, store.training_folder(root))
    # Before anything is read: on battery nothing begins.
    if clock.must_stop():
        raise TrainingError(f"not started: {clock.stop_reason}; plug it in")
    # Loads torch for seconds; reading a large repository takes longer, and is in vain with a base of no use.
    from dgemma_engine.model.devices import pick_device
    from dgemma_engine.tools.tuning.training_config import fitting_rank, tune_config
    from dgemma_engine.tools.tuning.tuned_base import TunedBase
    from dgemma_engine.tools.tuning.tuner import Tuner

    base = TunedBase.of(model_folder(arguments.model))
    split = _split(root, arguments.private_file, report)
    return Tuner(
        root,
        split,
        base,
        tune_config(rank=fitting_rank(base.path, base.merged), seed=seed),
        store=store,
        minutes=minutes,
        device=pick_device(arguments.device),
        clock=_work_clock(),
        now=lambda: datetime.now(UTC),
        report=report,
        how_to_go_on="go on with the same command" if arguments.resume_if_possible else "go on with --resume",
    )


def _budget(arguments: argparse.Namespace, training: TrainingFolder) -> tuple[float, int]:
    """Returns minutes and seed: as given, else those of the tuning that goes on.

    Raises:
        TrainingError: another process is tuning the same.
        CannotResume: nothing is there that could go on.
        WrongUsage: the seed is another one.
    """
    training.require_free()
    if arguments.resume and not arguments.resume_if_possible and not training.is_unfinished:
        raise CannotResume(
            f"{arguments.folder or arguments.out}: nothing to resume, no tuning was interrupted here; start without "
            "--resume"
        )
    begun = training.facts() if arguments.resume or arguments.resume_if_possible else None
    minutes, seed = (_MINUTES, _SEED) if begun is None else (begun.minutes, begun.seed)
    if begun is not None and arguments.seed not in (None, begun.seed):
        raise WrongUsage(
            f"--seed {arguments.seed}: the tuning that goes on has the seed {begun.seed}; leave out --seed, or --resume"
        )
    return arguments.minutes or minutes, seed if arguments.seed is None else arguments.seed


def _tune(tuner: Tuner | TaskTuner, arguments: argparse.Namespace, report: Report) -> TuneResult | TaskResult:
    if not arguments.resume_if_possible:
        return tuner.run(resume=arguments.resume)
    try:
        return tuner.run(resume=True)
    except CannotResume as error:
        reason = str(error).partition(";")[0]
    # Frees what the error refers to: only one model fits into memory.
    gc.collect()
    report(0, f"beginning anew, {reason}")
    return replace(tuner.run(resume=False), dropped=reason)


def _split(root: Path, private: list[str], report: Report) -> FileSplit:
    from dgemma_engine.privacy.file_privacy import FilePrivacy
    from dgemma_engine.tools.tuning.repository.change_times import change_times
    from dgemma_engine.tools.tuning.repository.file_split import FileSplit
    from dgemma_engine.tools.tuning.repository.repository_files import read_repository

    report(0, "reading the repository")
    privacy = FilePrivacy(private, home=Path.home(), clock=time.monotonic, report=_say)
    found = read_repository(root, privacy.why_not_read, lambda names: change_times(root, names, os.environ))
    if found.num_not_read:
        report(0, f"reading the source files that were changed last; {found.num_not_read:,} older ones are left out")
    return FileSplit.of(found)


def _start_clock() -> WorkClock:
    """Returns the clock of what comes before the work, which a signal ends by itself."""
    return _clock(lambda: False)


def _work_clock() -> WorkClock:
    from dgemma_engine.tools.training.signals import first_signal

    return _clock(first_signal())


def _clock(is_interrupted: Callable[[], bool]) -> WorkClock:
    from dgemma_engine.tools.tuning.engine_activity import EngineActivity
    from dgemma_engine.tools.tuning.power import is_on_battery
    from dgemma_engine.tools.tuning.work_clock import WorkClock

    return WorkClock(
        clock=time.monotonic,
        sleep=time.sleep,
        is_answering=EngineActivity.of_user(os.environ),
        is_on_battery=is_on_battery,
        is_interrupted=is_interrupted,
    )


def _progress(write: Callable[[int, str], None]) -> Report:
    last: tuple[int, str] | None = None

    def report(percent: int, line: str) -> None:
        nonlocal last
        # A reader has no use for the same percentage of the same work twice.
        work = re.split(r"[:,] ", line)[0]
        if (percent, work) != last:
            last = percent, work
            write(percent, line)

    return report


def _text_line(percent: int, line: str) -> None:
    _say(f"{percent:>3} % {line}")


def _json_line(percent: int, line: str) -> None:
    _print(json.dumps({"percent": percent, "message": line}))


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
    if not MIN_MINUTES <= minutes < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of minutes, at least {MIN_MINUTES:g}")
    return minutes
