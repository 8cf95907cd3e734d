"""Tunes on a task: rows and a Llama in; a verdict out, and the adapter kept if it is better.

Measures held-out rows, trains, measures the same rows again, compares. What must outlive the process is kept in a
folder within that of the adapter and removed after the verdict.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from dgemma_engine.durable_files import put_in_place, write_whole
from dgemma_engine.errors import CannotResume, Diverged, Interrupted, TrainingError
from dgemma_engine.families.llama.adapter import fingerprint
from dgemma_engine.repository_adapters.training_folder import TrainingFacts, TrainingFolder
from dgemma_engine.tools.adaptation.task.canvas_base import CanvasBase, require_llama
from dgemma_engine.tools.adaptation.task.canvas_trainer import CanvasConfig, CanvasTrainer
from dgemma_engine.tools.tasks.solver import Solver
from dgemma_engine.tools.tasks.task_model import ADAPTER, TaskModel
from dgemma_engine.tools.tasks.task_tokens import TaskTokens
from dgemma_engine.tools.training.checkpoint import STATE, unwritable
from dgemma_engine.tools.tuning.learning_progress import learning_progress
from dgemma_engine.tools.tuning.task.task_comparison import RowResult, TaskComparison
from dgemma_engine.tools.tuning.task.task_result import TaskResult
from dgemma_engine.tools.tuning.task.task_rows_split import MIN_HELD_OUT, TaskRows
from dgemma_engine.tools.tuning.tuner import Report
from dgemma_engine.tools.tuning.work_clock import WorkClock

_BEFORE = "before.json"
# Of the whole time: measuring before; measuring afterwards takes about as long.
_MEASURING_SHARE = 0.12
_MIN_TRAINING_SHARE = 0.5
_NUM_STEPS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class _Before:
    """Results without an adapter, and what they belong to."""

    base_sha256: str
    task_sha256: str
    spent_s: float
    results: tuple[RowResult, ...]


class TaskTuner:
    """One task's tuning.

    Args:
        task: file of the rows.
        base: GGUF file of a Llama.
        out: folder of the adapter.
        config: of the training.
        minutes: of work in all, over all calls.
        device: where to train and to measure.
        clock: seconds of work; says when to stop.
        now: the time of day, with its zone.
        report: see `Report`.
        training: holds what must outlive the process.
    """

    def __init__(
        self,
        task: Path,
        base: Path,
        out: Path,
        config: CanvasConfig,
        *,
        minutes: float,
        device: torch.device,
        clock: WorkClock,
        now: Callable[[], datetime],
        report: Report,
        training: TrainingFolder,
    ) -> None:
        self._task, self._base, self._out, self._config = task, base, out, config
        self._total_s, self._device, self._clock, self._now, self._report = minutes * 60, device, clock, now, report
        self._training = training

    def run(self, *, resume: bool) -> TaskResult:
        """Tunes.

        Args:
            resume: goes on with what an interrupted call left, if it left anything; else that is dropped.

        Raises:
            CannotResume: what an interrupted call left is of no use for these rows, this base or this configuration.
            Interrupted: the user ended it.
            EngineError: it cannot begin or go on; nothing is installed.
        """
        self._report(0, "loading the model")
        require_llama(self._base)
        model = TaskModel.load(self._base, self._device)
        rows = TaskRows.read(self._task, model)
        base_sha256 = fingerprint(self._base)
        with self._training.exclusive():
            if not resume:
                self._training.clear()
            before = self._load(base_sha256, rows.sha256)
            self._training.begin(self._facts())
            if before is None:
                before = self._measure_before(model, rows, base_sha256)
            # Only one model fits into memory.
            del model
            gc.collect()
            trainer = self._train(rows, before)
            progress = trainer.progress
            del trainer
            gc.collect()
            after = self._measure_after(rows.held_out[: len(before.results)])
            comparison = TaskComparison.of(before.results, after, seed=self._config.seed)
            installed = self._install(base_sha256) if comparison.is_better else None
            self._training.clear()
        return TaskResult(
            task=str(self._task),
            comparison=comparison,
            installed=installed,
            minutes=progress.minutes,
            steps=progress.step,
            rows_seen=progress.holes,
            num_train=len(rows.train),
            num_held_out=len(rows.held_out),
        )

    def _facts(self) -> TrainingFacts:
        return TrainingFacts(
            root=str(self._task),
            base_name=self._base.name,
            started=self._now().isoformat(timespec="seconds"),
            minutes=self._total_s / 60,
            seed=self._config.seed,
        )

    def _load(self, base_sha256: str, task_sha256: str) -> _Before | None:
        try:
            values: dict[str, Any] = json.loads((self._training.path / _BEFORE).read_text(encoding="utf-8"))
            results = tuple(RowResult(**one) for one in values.pop("results"))
            before = _Before(**values, results=results)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        if (before.base_sha256, before.task_sha256) != (base_sha256, task_sha256):
            raise CannotResume(
                f"{self._training.path}: the model or the rows have changed since the training began; start again "
                "without --resume"
            )
        return before

    def _measure_before(self, model: TaskModel, rows: TaskRows, base_sha256: str) -> _Before:
        started_s, allowed_s = self._clock(), _MEASURING_SHARE * self._total_s

        def share(done: int) -> float:
            return min(done / MIN_HELD_OUT, (self._clock() - started_s) / allowed_s)

        results = self._measure(model, rows.held_out, range(11), share, name="the model as it is")
        fresh = _Before(
            base_sha256=base_sha256,
            task_sha256=rows.sha256,
            spent_s=self._clock() - started_s,
            results=results,
        )
        path = self._training.path / _BEFORE
        try:
            write_whole(path, json.dumps(asdict(fresh)).encode())
        except OSError as error:
            raise unwritable(path, error) from error
        return fresh

    def _train(self, rows: TaskRows, before: _Before) -> CanvasTrainer:
        self._report(10, "loading the model")
        train_s = max(_MIN_TRAINING_SHARE * self._total_s, self._total_s - 2 * before.spent_s)
        config = self._config
        trainer = CanvasTrainer(
            config,
            base=CanvasBase(self._base, rank=config.rank, device=self._device, seed=config.seed),
            rows=rows.train,
            task_sha256=rows.sha256,
            out=self._training.path,
            device=self._device,
            clock=self._clock,
        )

        def must_stop() -> bool:
            self._report(*learning_progress(trainer.progress.elapsed_s, train_s))
            return self._clock.must_stop()

        if (self._training.path / STATE).exists():
            trainer.resume()
        try:
            trainer.run(max(0.0, train_s - trainer.progress.elapsed_s) / 60, interrupted=must_stop)
        except Diverged as error:
            # From the same state it would fail again.
            self._training.clear()
            raise Diverged(f"the training failed, nothing was installed: {error}") from error
        if self._clock.stop_reason is not None:
            raise self._stopped()
        if trainer.progress.step == 0:
            self._training.clear()
            raise TrainingError(
                f"no step of training fits into {self._total_s / 60:g} minutes here, nothing was installed; choose "
                "more --minutes"
            )
        return trainer

    def _measure_after(self, rows: Sequence[TaskTokens]) -> tuple[RowResult, ...]:
        model = TaskModel.load(self._base, self._device, self._training.path)
        num_rows = len(rows)
        return self._measure(model, rows, range(82, 100), lambda done: done / num_rows, name="what was learnt")

    def _measure(
        self,
        model: TaskModel,
        rows: Sequence[TaskTokens],
        percents: range,
        share: Callable[[int], float],
        *,
        name: str,
    ) -> tuple[RowResult, ...]:
        """Measures until the share that is done, of the number of rows, is 1 or no row is left."""
        solver, results = Solver(model, num_steps=_NUM_STEPS, mode="adaptive"), list[RowResult]()
        for tokens in rows:
            done_share = max(min(1.0, share(len(results))), len(results) / len(rows))
            self._report(
                percents[int((len(percents) - 1) * done_share)], f"measuring {name}: {len(results)} rows so far"
            )
            if self._clock.must_stop():
                raise self._stopped()
            if done_share >= 1:
                break
            solution = solver.solve(tokens, place=str(self._task))
            results.append(RowResult(right=solution.num_right(tokens), free=len(solution.ids)))
        return tuple(results)

    def _install(self, base_sha256: str) -> Path:
        if fingerprint(self._base) != base_sha256:
            raise TrainingError(f"{self._base}: has changed since the training began, nothing was installed")
        made, path = self._training.path / ADAPTER, self._out / ADAPTER
        try:
            put_in_place(made, path)
        except OSError as error:
            raise unwritable(path, error) from error
        return path

    def _stopped(self) -> TrainingError:
        kind = Interrupted if self._clock.is_ended_by_user else TrainingError
        remedy = "go on with --resume" if self._training.is_unfinished else "start again"
        return kind(f"stopped, nothing was installed: {self._clock.stop_reason}; {remedy}")
