"""Tunes for a repository: its files in; a verdict out, and the adapter installed if it is better.

Measures held-out holes, trains, measures the same holes again, compares. What must outlive the process is kept in the
store's folder for trainings and removed after the verdict.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import torch

from dgemma_engine.errors import CannotResume, Diverged, Interrupted, TrainingError
from dgemma_engine.infill.engine import Engine
from dgemma_engine.repository_adapters.about import About, HeldOutFigures
from dgemma_engine.repository_adapters.store import ADAPTER, CALIBRATION, AdapterStore, RepositoryAdapter
from dgemma_engine.repository_adapters.training_folder import TrainingFacts
from dgemma_engine.tools.adaptation.adapted_base import AdaptedBase
from dgemma_engine.tools.adaptation.config import AdaptConfig
from dgemma_engine.tools.adaptation.progress import AdaptProgress
from dgemma_engine.tools.adaptation.trainer import AdaptTrainer
from dgemma_engine.tools.calibration.samples import SampledHole
from dgemma_engine.tools.training.checkpoint import STATE, unwritable
from dgemma_engine.tools.tuning.begun_tuning import BegunTuning, cannot_resume, holes_key, reason_of
from dgemma_engine.tools.tuning.comparison import Comparison
from dgemma_engine.tools.tuning.hole_results import HoleResults, figures_of, measure
from dgemma_engine.tools.tuning.learning_progress import learning_progress
from dgemma_engine.tools.tuning.refit import Refit
from dgemma_engine.tools.tuning.repository.file_split import FileSplit
from dgemma_engine.tools.tuning.repository.held_out_holes import held_out_holes
from dgemma_engine.tools.tuning.training_space import require_space
from dgemma_engine.tools.tuning.tune_result import TuneResult
from dgemma_engine.tools.tuning.tuned_base import TunedBase
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
        how_to_go_on: what to do after it was stopped.
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
        how_to_go_on: str = "go on with --resume",
    ) -> None:
        self._root, self._split, self._base, self._config, self._store = root, split, base, config, store
        self._total_s, self._device, self._clock, self._now, self._report = minutes * 60, device, clock, now, report
        self._training, self._how_to_go_on = store.training_folder(root), how_to_go_on
        self._folder = self._training.path

    def run(self, *, resume: bool) -> TuneResult:
        """Tunes.

        Args:
            resume: goes on with what an interrupted call left, if it left anything; else that is dropped.

        Raises:
            CannotResume: what an interrupted call left is of no use for these files, this base or this configuration.
            Interrupted: the user ended it.
            EngineError: it cannot begin or go on; nothing is installed.
        """
        samples = held_out_holes(self._split.held_out, seed=self._config.seed)
        if len(samples) < MIN_HOLES:
            raise TrainingError(
                f"the held-out files give {len(samples)} holes, {MIN_HOLES} are needed; tune a larger folder"
            )
        folder = self._training
        with folder.exclusive():
            if not resume:
                folder.clear()
            require_space(folder, self._base, self._config.rank)
            begun = BegunTuning.load(self._folder)
            if begun is not None:
                begun.require_same(self._base, self._split.sha256)
            folder.begin(self._facts())
            key = holes_key(samples)
            if begun is None or begun.holes_key != key:
                begun = self._measure_before(samples, key)
            progress = self._train(begun)
            # The trainer and its callback are a reference cycle, and only one model fits into memory.
            gc.collect()
            after = self._measure_after(begun, progress, samples)
            result = self._judge(begun, after, progress)
            folder.clear()
        return result

    def _facts(self) -> TrainingFacts:
        return TrainingFacts(
            root=str(self._root),
            base_name=self._base.path.name,
            started=self._now().isoformat(timespec="seconds"),
            minutes=self._total_s / 60,
            seed=self._config.seed,
        )

    def _measure_before(self, samples: Sequence[SampledHole], key: int) -> BegunTuning:
        """Measures holes without an adapter, and saves the results."""
        started_s, allowed_s = self._clock(), _MEASURING_SHARE * self._total_s
        self._report(0, "measuring completions as they are")
        measured = self._measure(
            self._base.engine(self._device),
            samples,
            range(11),
            lambda done: min(done / MIN_HOLES, (self._clock() - started_s) / allowed_s),
            name="completions as they are",
        )
        fresh = BegunTuning(
            base_sha256=self._base.sha256,
            merged_sha256=self._base.merged_sha256,
            split_sha256=self._split.sha256,
            holes_key=key,
            spent_s=self._clock() - started_s,
            results=measured.results,
        )
        fresh.save(self._folder)
        return fresh

    def _train(self, begun: BegunTuning) -> AdaptProgress:
        self._report(10, "loading the model")
        train_s = max(_MIN_TRAINING_SHARE * self._total_s, self._total_s - 2 * begun.spent_s)
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
            # Its lines are about losses.
            report=lambda _line: None,
        )

        def must_stop() -> bool:
            self._report(*learning_progress(trainer.progress.elapsed_s, train_s))
            return self._clock.must_stop()

        if (self._folder / STATE).exists():
            try:
                trainer.resume()
            except CannotResume as error:
                raise cannot_resume(f"its state is of no use ({reason_of(error)})") from error
        try:
            trainer.run(max(0.0, train_s - trainer.progress.elapsed_s) / 60, interrupted=must_stop)
        except Diverged as error:
            # From the same state it would fail again.
            self._training.clear()
            raise Diverged(
                f"the training failed ({reason_of(error)}), nothing was installed; start again with another --seed"
            ) from error
        if self._clock.stop_reason is not None:
            raise self._stopped()
        if trainer.progress.step == 0:
            self._training.clear()
            raise TrainingError(
                f"no step of training fits into {self._total_s / 60:g} minutes here, nothing was installed; choose "
                "more --minutes"
            )
        return trainer.progress

    def _measure_after(self, begun: BegunTuning, progress: AdaptProgress, holes: Sequence[SampledHole]) -> HoleResults:
        """Measures the same holes with the adapter, installed in a store of its own as it would be in the user's."""
        figures, trial = figures_of(begun.results), AdapterStore(folder=self._folder / "trial")
        trial.install(self._about(progress, before=figures, after=figures), adapter=self._trained(), calibration=None)
        engine, num_holes = self._base.engine(self._device, trial), len(begun.results)
        after = self._measure(
            engine, holes[:num_holes], range(82, 100), lambda done: done / num_holes, name="new completions"
        )
        # An engine that cannot use an adapter answers without it.
        if fault := engine.adapters.get(str(self._root), "it was not asked for"):
            self._training.clear()
            raise TrainingError(f"the adapter cannot be measured, nothing was installed: {fault}")
        return after

    def _measure(
        self, engine: Engine, holes: Sequence[SampledHole], percents: range, share: Callable[[int], float], *, name: str
    ) -> HoleResults:
        """Measures until the share that is done, of the number of holes, is 1 or no hole is left."""

        def may_go_on(done: int) -> bool:
            done_share = max(min(1.0, share(done)), done / len(holes))
            self._report(percents[int((len(percents) - 1) * done_share)], f"measuring {name}: {done} so far")
            if self._clock.must_stop():
                raise self._stopped()
            return done_share < 1

        return measure(
            engine,
            holes,
            folder=str(self._root),
            threshold=self._base.calibration.threshold,
            seed=self._config.seed,
            clock=self._clock,
            goes_on=may_go_on,
        )

    def _judge(self, begun: BegunTuning, after: HoleResults, progress: AdaptProgress) -> TuneResult:
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
            try:
                refit.calibration.save(self._folder)
            except OSError as error:
                raise unwritable(self._folder / CALIBRATION, error) from error
            calibration = (self._folder / CALIBRATION).read_bytes()
        return self._store.install(about, adapter=self._trained(), calibration=calibration)

    def _stopped(self) -> TrainingError:
        kind = Interrupted if self._clock.is_ended_by_user else TrainingError
        remedy = self._how_to_go_on if self._training.is_unfinished else "start again"
        return kind(f"stopped, nothing was installed: {self._clock.stop_reason}; {remedy}")
