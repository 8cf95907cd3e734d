"""Results of many holes as figures: shares, means, percentiles and their intervals; what was not measured is None."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from dgemma_engine.scheduling.timing import LatencyStats
from dgemma_engine.tools.evaluation.intervals import Interval, mean_interval
from dgemma_engine.tools.evaluation.judgement import Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationFigures:
    """Figures of one kind of hole, or of all. Shares are 0 to 1.

    Attributes:
        n: holes.
        exact_match: share answered with exactly the truth.
        exact_match_ci: 95 % interval.
        edit_similarity: mean share of characters in common.
        edit_similarity_ci: 95 % interval.
        parse_rate: share of the holes in files that parse whose filled file does, too.
        length_error_mean: mean distance to the true number of tokens.
        pass_at_1: share of the answers run that passed.
        shown_share: share of holes with an answer.
        precision_shown: share of those that is exact.
        forwards_mean: passes through the model per hole.
        steps_mean: denoising steps per hole.
        p50_ms: median latency.
        p95_ms: latency that one in twenty exceeds.
    """

    n: int
    exact_match: float
    exact_match_ci: Interval
    edit_similarity: float
    edit_similarity_ci: Interval
    parse_rate: float | None
    length_error_mean: float | None
    pass_at_1: float | None
    shown_share: float
    precision_shown: float | None
    forwards_mean: float | None
    steps_mean: float | None
    p50_ms: float | None
    p95_ms: float | None

    @classmethod
    def of(cls, judgements: Sequence[Judgement], *, seed: int) -> EvaluationFigures:
        """Sums up results.

        Args:
            judgements: at least one.
            seed: of the intervals' resamples.
        """
        exact = [float(judgement.exact) for judgement in judgements]
        similarity = [judgement.similarity for judgement in judgements]
        latency = LatencyStats(size=len(judgements))
        for judgement in judgements:
            if judgement.ms is not None:
                latency.add({"ms": judgement.ms})
        times = latency.times().get("ms")
        return cls(
            n=len(judgements),
            exact_match=fmean(exact),
            exact_match_ci=mean_interval(exact, seed=seed),
            edit_similarity=fmean(similarity),
            edit_similarity_ci=mean_interval(similarity, seed=seed),
            parse_rate=_mean(judgement.parses for judgement in judgements),
            length_error_mean=_mean(
                None if judgement.token_error is None else abs(judgement.token_error) for judgement in judgements
            ),
            pass_at_1=_mean(judgement.passed for judgement in judgements),
            shown_share=fmean(judgement.shown for judgement in judgements),
            precision_shown=_mean(judgement.exact for judgement in judgements if judgement.shown),
            forwards_mean=_mean(judgement.forwards for judgement in judgements),
            steps_mean=_mean(judgement.steps for judgement in judgements),
            p50_ms=times.p50_ms if times else None,
            p95_ms=times.p95_ms if times else None,
        )


def figures_by_kind(judgements: Sequence[Judgement], *, seed: int) -> dict[str, EvaluationFigures]:
    """Returns the figures of each kind, in the order in which the kinds first appear."""
    kinds: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        kinds.setdefault(judgement.kind, []).append(judgement)
    return {kind: EvaluationFigures.of(members, seed=seed) for kind, members in kinds.items()}


def _mean(values: Iterable[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return fmean(measured) if measured else None
