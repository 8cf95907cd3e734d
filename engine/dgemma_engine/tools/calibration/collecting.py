"""Asks an engine about holes whose middles are known: samples in, judged candidates and length trials out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from dgemma_engine.checkpoint.calibration import Calibration
from dgemma_engine.infill.candidate import Ranked
from dgemma_engine.infill.length_search import LengthReading
from dgemma_engine.infill.options import InfillOptions
from dgemma_engine.postprocess.shape import without_covered
from dgemma_engine.protocol.messages import Context, Extent
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tools.calibration.judged_hole import JudgedCandidate, JudgedHole
from dgemma_engine.tools.calibration.length_bias import LengthFit, LengthTrial, fit_lengths
from dgemma_engine.tools.calibration.samples import SampledHole

# More than any hole takes: steps are never cut short, so a busy machine gives the same candidates as an idle one.
_DEADLINE_S = 600.0


class RankingEngine(Protocol):
    """What a calibration needs of an engine; `dgemma_engine.infill.engine.Engine` has it."""

    model_name: str
    device: str

    def ranked(self, context: Context, cancel: Cancel, *, options: InfillOptions) -> list[Ranked]:
        """Returns every candidate with its features."""
        ...

    def length_reading(self, context: Context, middle: str, cancel: Cancel) -> LengthReading | None:
        """Returns what the search for a length reads from the model."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """The engine's candidates for all holes, and the fit of lengths.

    Attributes:
        model: its name.
        device: where it ran.
        holes: one per sample.
        lengths: fitted on the holes of one line; None where there are too few.
        no_lengths: why there are none; empty where there are.
    """

    model: str
    device: str
    holes: tuple[JudgedHole, ...]
    lengths: LengthFit | None
    no_lengths: str


def collect(
    samples: Sequence[SampledHole],
    load: Callable[[Calibration], RankingEngine],
    *,
    has_canvas: bool,
    searches_length: bool,
    seed: int,
    clock: Callable[[], float],
    report: Callable[[str], None],
) -> Collected:
    """Measures lengths first, then candidates.

    Args:
        samples: the holes.
        load: makes the engine, with the calibration that it uses.
        has_canvas: whether the checkpoint denoises; lengths are those of a canvas.
        searches_length: whether the checkpoint cannot end a middle itself. Which candidates it finds then depends on
            the length bias, so the engine is loaded again with the bias that was fitted.
        seed: of the engine's draws and of the split of holes.
        clock: seconds that never go backwards.
        report: called with a line at every tenth of the way.
    """
    lines = [sample for sample in samples if has_canvas and sample.task.extent is Extent.LINE]
    tick = _Progress(len(lines) + len(samples), report)
    bare = Calibration.default()
    engine = load(bare)
    trials: list[LengthTrial] = []
    for sample in lines:
        trial = _length_trial(engine, sample, seed, clock)
        if trial is not None:
            trials.append(trial)
        tick()
    lengths, no_lengths = _fitted(trials, seed) if has_canvas else (None, "the model has no canvas")
    if searches_length and lengths is not None:
        # The weights of two engines may not fit into memory.
        del engine
        engine = load(replace(bare, length_bias=lengths.bias, prior_weight=lengths.prior_weight))
    holes: list[JudgedHole] = []
    for sample in samples:
        holes.append(rank(engine, sample, seed, clock)[1])
        tick()
    return Collected(
        model=engine.model_name, device=engine.device, holes=tuple(holes), lengths=lengths, no_lengths=no_lengths
    )


def _length_trial(
    engine: RankingEngine, sample: SampledHole, seed: int, clock: Callable[[], float]
) -> LengthTrial | None:
    reading = engine.length_reading(_context(sample, seed), sample.task.middle, _patience(clock))
    if reading is None or not reading.confidences:
        return None
    lengths, confidences = reading.prior.lengths, reading.confidences
    return LengthTrial(
        hole=sample.hole,
        true_length=reading.true_length,
        lengths=lengths,
        confidences=tuple(sum(confidences[length]) / len(confidences[length]) for length in lengths),
        log_prior=reading.prior.log_probs,
    )


def _fitted(trials: Sequence[LengthTrial], seed: int) -> tuple[LengthFit | None, str]:
    if len(trials) < 2:
        return None, f"{len(trials)} holes of one line are too few"
    try:
        return fit_lengths(trials, generator=np.random.default_rng(seed)), ""
    except ValueError as error:
        return None, str(error)


def rank(
    engine: RankingEngine, sample: SampledHole, seed: int, clock: Callable[[], float], *, folder: str = ""
) -> tuple[list[Ranked], JudgedHole]:
    """Asks about one hole; returns the candidates, best first, and the same judged.

    Args:
        engine: the engine.
        sample: the hole, a document of its own.
        seed: of the engine's draws.
        clock: seconds that never go backwards.
        folder: that the document is in, as in `Context.folder`; empty asks the model as it is.
    """
    ranked = engine.ranked(
        replace(_context(sample, seed), folder=folder), _patience(clock), options=InfillOptions(silence=False)
    )
    truth, suffix = sample.task.middle.strip(), sample.task.suffix
    return ranked, JudgedHole(
        hole=sample.hole,
        kind=sample.task.kind,
        file=sample.file,
        candidates=tuple(
            JudgedCandidate(features=one.features, right=text is not None and text.strip() == truth)
            for one in ranked
            if one.features is not None
            for text in (without_covered(one.proposal.text, one.proposal.covered, suffix),)
        ),
    )


def _context(sample: SampledHole, seed: int) -> Context:
    """Returns the question as an editor would put it; every hole is a document of its own."""
    task = sample.task
    return Context(
        document=sample.hole,
        prefix=task.prefix,
        suffix=task.suffix,
        path=task.path,
        language=task.language,
        snippets=task.snippets,
        extent=task.extent,
        deadline_ms=_DEADLINE_S * 1e3,
        seed=seed,
    )


def _patience(clock: Callable[[], float]) -> Cancel:
    return Cancel(deadline_s=clock() + _DEADLINE_S, clock=clock)


class _Progress:
    def __init__(self, total: int, report: Callable[[str], None]) -> None:
        self._total = total
        self._report = report
        self._done = 0

    def __call__(self) -> None:
        before = 10 * self._done // self._total
        self._done += 1
        tenths = 10 * self._done // self._total
        if tenths > before:
            self._report(f"{10 * tenths:>3} % ({self._done} of {self._total} questions asked)")
