"""One tuning from beginning to end: a repository's files in; a verdict out, and the adapter installed if it is better.

Measures held-out holes, trains, measures the same holes again, compares. What must outlive the process lies in the
store's folder for trainings, and goes once the verdict is there.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import torch

from dgemma_engine.errors import Diverged, TrainingError
from dgemma_engine.infill.engine import Engine
from dgemma_engine.repository_adapters.about import About, HeldOutFigures
from dgemma_engine.repository_adapters.store import ADAPTER, CALIBRATION, AdapterStore, RepositoryAdapter
from dgemma_engine.tools.adaptation.adapted_base import AdaptedBase
from dgemma_engine.tools.adaptation.config import AdaptConfig
from dgemma_engine.tools.adaptation.progress import AdaptProgress
from dgemma_engine.tools.adaptation.trainer import AdaptTrainer
from dgemma_engine.tools.calibration.samples import Sample
from dgemma_engine.tools.training.checkpoint import STATE
from dgemma_engine.tools.tuning.begun_tuning import BegunTuning, holes_key
from dgemma_engine.tools.tuning.comparison import Comparison
from dgemma_engine.tools.tuning.hole_results import Measured, figures_of, measure
from dgemma_engine.tools.tuning.refit import Refit
from dgemma_engine.tools.tuning.repository.file_split import FileSplit
from dgemma_engine.tools.tuning.repository.held_out_holes import held_out_holes
from dgemma_engine.tools.tuning.training_folder import TrainingFolder
from dgemma_engine.tools.tuning.tune_result import TuneResult
from dgemma_engine.tools.tuning.tuned_base import TunedBase, base_changed
from dgemma_engine.tools.tuning.work_clock import WorkClock

MIN_HOLES = 24
"""Held-out holes that are measured however little time there is."""

# Of the whole time: measuring before; measuring afterwards takes about as long.
_MEASURING_SHARE = 0.12
_MIN_TRAINING_SHARE = 0.5

Report = Callable[[int, str], None]
"""Called with the percentage of the whole tuning and a line for a person."""


class Tuner:
    """One repository's tuning.

    Args:
        root: canonical path of its folder.
        split: its files.
        base: what is tuned.
        config: of the training.
        store: where the adapter goes.
        minutes: of work in all, over all calls.
        device: where to train and to measure.
        clock: seconds of work; says when to stop.
        now: the time of day, with its zone.
        report: see `Report`.
    """

    def __init__(
        self,
        root: Path,
        split: FileSplit,
        base: TunedBase,
        config: AdaptConfig,
        *,
        store: AdapterStore,
        minutes: float,
        device: torch.device,
        clock: WorkClock,
        now: Callable[[], datetime],
        report: Report,
    ) -> None:
        self._root, self._split, self._base, self._config, self._store = root, split, base, config, store
        self._total_s, self._device, self._clock, self._now, self._report = minutes * 60, device, clock, now, report
        self._folder = store.training_folder(root)

    def run(self, *, resume: bool) -> TuneResult:
        """Tunes.

        Args:
            resume: goes on with what an interrupted call left, if it left anything; else that is dropped.

        Raises:
            EngineError: it cannot begin or go on, or was asked to stop; nothing is installed.
        """
        samples = held_out_holes(self._split.held_out, seed=self._config.seed)
        if len(samples) < MIN_HOLES:
            raise TrainingError(
                f"the held-out files give {len(samples)} holes, {MIN_HOLES} are needed; tune a larger folder"
            )
        folder = TrainingFolder(path=self._folder)
        with folder.exclusive():
            if not resume:
                folder.clear()
            begun = self._begun(samples)
            progress = self._train(begun)
            # The trainer and what it reports to hold each other, and there is memory for one model.
            gc.collect()
            self._report(82, "measuring with the adapter")
            after = self._measure_after(begun, progress, samples)
            result = self._judge(begun, after, progress)
            folder.clear()
        return result

    def _begun(self, samples: Sequence[Sample]) -> BegunTuning:
        """Returns what an earlier call has measured without an adapter, else measures it."""
        key, begun = holes_key(samples), BegunTuning.load(self._folder)
        if begun is not None:
            if (begun.base_sha256, begun.merged_sha256) != (self._base.sha256, self._base.merged_sha256):
                raise base_changed(self._base.path)
            if begun.split_sha256 != self._split.sha256:
                raise TrainingError(
                    "files were added or removed since the training began; start again without --resume"
                )
            if begun.holes_key == key:
                return begun
        started_s = self._clock()
        self._report(0, "measuring without an adapter")
        measured = self._measure(
            self._base.engine(self._device),
            samples,
            first=0,
            last=10,
            goes_on=lambda done: done < MIN_HOLES or self._clock() - started_s < _MEASURING_SHARE * self._total_s,
        )
        spent_s = self._clock() - started_s
        fresh = BegunTuning(
            base_sha256=self._base.sha256,
            merged_sha256=self._base.merged_sha256,
            split_sha256=self._split.sha256,
            holes_key=key,
            train_s=max(_MIN_TRAINING_SHARE * self._total_s, self._total_s - 2 * spent_s),
            results=measured.results,
        )
        fresh.save(self._folder)
        return fresh

    def _train(self, begun: BegunTuning) -> AdaptProgress:
        self._report(10, "loading the model")
        trainer = AdaptTrainer(
            self._config,
            base=AdaptedBase(
                self._base.path,
                rank=self._config.rank,
                device=self._device,
                seed=self._config.seed,
                beneath=self._base.merged,
            ),
            sources=self._split.sources(),
            out=self._folder,
            device=self._device,
            clock=self._clock,
            report=lambda line: self._report(percent(), line),
        )
        progress = trainer.progress

        def percent() -> int:
            return 10 + round(72 * min(1.0, trainer.progress.elapsed_s / begun.train_s))

        def must_stop() -> bool:
            self._report(percent(), f"learning, {trainer.progress.holes} holes so far")
            return self._clock.must_stop()

        if (self._folder / STATE).exists():
            trainer.resume()
            progress = trainer.progress
        left_s = begun.train_s - progress.elapsed_s
        try:
            trainer.run(max(0.0, left_s) / 60, interrupted=must_stop)
        except Diverged as error:
            raise Diverged(
                f"the training failed ({str(error).partition(';')[0]}), nothing was installed; start again without "
                "--resume"
            ) from error
        if self._clock.stop_reason is not None:
            raise self._stopped()
        return trainer.progress

    def _measure_after(self, begun: BegunTuning, progress: AdaptProgress, samples: Sequence[Sample]) -> Measured:
        """Measures the same holes with the adapter, installed in a store of its own as it would be in the user's."""
        figures, trial = figures_of(begun.results), AdapterStore(folder=self._folder / "trial")
        trial.install(self._about(progress, before=figures, after=figures), adapter=self._trained(), calibration=None)
        engine, num_holes = self._base.engine(self._device, trial), len(begun.results)
        after = self._measure(engine, samples[:num_holes], first=82, last=99, goes_on=lambda _done: True)
        # An engine that cannot use an adapter answers without it.
        if fault := engine.adapters.get(str(self._root), "it was not asked for"):
            raise TrainingError(f"the adapter cannot be measured, nothing was installed: {fault}")
        return after

    def _measure(
        self, engine: Engine, samples: Sequence[Sample], *, first: int, last: int, goes_on: Callable[[int], bool]
    ) -> Measured:
        def may_go_on(done: int) -> bool:
            self._report(first + (last - first) * done // len(samples), f"{done} held-out holes filled")
            if self._clock.must_stop():
                raise self._stopped()
            return goes_on(done)

        return measure(
            engine,
            samples,
            folder=str(self._root),
            threshold=self._base.calibration.threshold,
            seed=self._config.seed,
            clock=self._clock,
            goes_on=may_go_on,
        )

    def _judge(self, begun: BegunTuning, after: Measured, progress: AdaptProgress) -> TuneResult:
        comparison = Comparison.of(begun.results, after.results, seed=self._config.seed)
        before_figures, after_figures = figures_of(begun.results), figures_of(after.results)
        refit = Refit.of(
            after.judged,
            self._base.calibration,
            fingerprint=self._base.fingerprint,
            precision=before_figures.precision_shown,
            num_files=len(self._split.held_out),
            today=self._now().date(),
            seed=self._config.seed,
        )
        if refit is not None:
            after_figures = replace(
                after_figures, precision_shown=round(refit.precision, 4), shown=round(refit.shown, 4)
            )
        about = self._about(progress, before=before_figures, after=after_figures)
        return TuneResult(
            root=str(self._root),
            before=before_figures,
            after=after_figures,
            comparison=comparison,
            installed=self._install(about, refit) if comparison.is_better else None,
            is_calibrated=refit is not None,
            minutes=progress.minutes,
            steps=progress.step,
            holes=progress.holes,
            num_train=len(self._split.train),
            num_held_out=len(self._split.held_out),
        )

    def _about(self, progress: AdaptProgress, *, before: HeldOutFigures, after: HeldOutFigures) -> About:
        return About(
            root=str(self._root),
            base_name=self._base.path.name,
            base_sha256=self._base.sha256,
            merged_sha256=self._base.merged_sha256,
            created=self._now().isoformat(timespec="seconds"),
            minutes=progress.minutes,
            holes=progress.holes,
            before=before,
            after=after,
        )

    def _trained(self) -> bytes:
        return (self._folder / ADAPTER).read_bytes()

    def _install(self, about: About, refit: Refit | None) -> RepositoryAdapter:
        self._base.require_unchanged()
        calibration: bytes | None = None
        if refit is not None:
            refit.calibration.save(self._folder)
            calibration = (self._folder / CALIBRATION).read_bytes()
        return self._store.install(about, adapter=self._trained(), calibration=calibration)

    def _stopped(self) -> TrainingError:
        return TrainingError(f"stopped, nothing was installed: {self._clock.stop_reason}; go on with --resume")
