"""What an engine answered in each held-out hole, judged: holes and an engine in, results and their figures out."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from dgemma_engine.infill.candidate import Ranked
from dgemma_engine.postprocess.shape import without_covered
from dgemma_engine.repository_adapters.about import HeldOutFigures
from dgemma_engine.tools.calibration.collecting import RankingEngine, rank
from dgemma_engine.tools.calibration.judged_hole import JudgedHole
from dgemma_engine.tools.calibration.samples import SampledHole
from dgemma_engine.tools.evaluation.holes.hole_kind import HoleKind


@dataclass(frozen=True, slots=True, kw_only=True)
class HoleResult:
    """One hole.

    Attributes:
        hole: names it.
        kind: what sort of hole it is.
        file: key of the file it was cut from.
        exact: whether the first candidate is what was cut out, white space at both ends aside.
        similarity: share of characters that both have in common, 0 to 1; 0 without a candidate.
        shown: whether the candidate is likely enough to be shown.
    """

    hole: str
    kind: str
    file: int
    exact: bool
    similarity: float
    shown: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HoleResults:
    """Results of the first of some holes.

    Attributes:
        results: one for each hole, in the order of the holes.
        judged: the same holes with every candidate, for a calibration.
    """

    results: tuple[HoleResult, ...]
    judged: tuple[JudgedHole, ...]


def measure(
    engine: RankingEngine,
    samples: Sequence[SampledHole],
    *,
    folder: str,
    threshold: float,
    seed: int,
    clock: Callable[[], float],
    goes_on: Callable[[int], bool],
) -> HoleResults:
    """Asks an engine about holes, each as a document of its own.

    Args:
        engine: the engine.
        samples: the holes.
        folder: of the repository, whose adapter takes part where the engine has one.
        threshold: score from which a candidate is shown.
        seed: of the engine's draws.
        clock: seconds that never go backwards.
        goes_on: asked before each hole, with the number of those that are done.
    """
    results, judged = list[HoleResult](), list[JudgedHole]()
    for sample in samples:
        if not goes_on(len(results)):
            break
        ranked, hole = rank(engine, sample, seed, clock, folder=folder)
        results.append(_judged(sample, ranked, threshold))
        judged.append(hole)
    return HoleResults(results=tuple(results), judged=tuple(judged))


def figures_of(results: Sequence[HoleResult]) -> HeldOutFigures:
    """Sums up results, at least one."""

    def exact(kind: HoleKind) -> float | None:
        return _mean(result.exact for result in results if result.kind == kind)

    return HeldOutFigures(
        num_holes=len(results),
        rest=exact(HoleKind.REST),
        line=exact(HoleKind.LINE),
        edit_similarity=round(fmean(result.similarity for result in results), 4),
        precision_shown=_mean(result.exact for result in results if result.shown),
        shown=round(fmean(result.shown for result in results), 4),
    )


def _judged(sample: SampledHole, ranked: Sequence[Ranked], threshold: float) -> HoleResult:
    best = ranked[0] if ranked else None
    text = "" if best is None else without_covered(best.proposal.text, best.proposal.covered, sample.task.suffix)
    text, truth = (text or "").strip(), sample.task.middle.strip()
    return HoleResult(
        hole=sample.hole,
        kind=sample.task.kind,
        file=sample.file,
        exact=text == truth,
        similarity=round(difflib.SequenceMatcher(None, text, truth, autojunk=False).ratio(), 4),
        shown=best is not None and best.score >= threshold,
    )


def _mean(values: Iterable[bool]) -> float | None:
    known = list(values)
    return round(fmean(known), 4) if known else None
