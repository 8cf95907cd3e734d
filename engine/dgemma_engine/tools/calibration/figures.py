"""How good a calibration is, as the figures of its report: a dict for the file and lines for a person.

Shares are of all holes, so a hole for which the engine found nothing counts as answered wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dgemma_engine.checkpoint.features import NAMES
from dgemma_engine.tools.calibration.judged_hole import JudgedHole
from dgemma_engine.tools.calibration.length_bias import LengthFit
from dgemma_engine.tools.calibration.reliability import wilson_interval
from dgemma_engine.tools.calibration.score_fit import ScoreFit, num_right_first

_COVERAGE = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class KindFigures:
    """Figures of one kind of hole.

    Attributes:
        n: holes.
        exact_match: share whose first candidate is right, ranked by held-out probability.
        oracle: share whose truth is among the candidates: the most that a ranking can reach.
    """

    n: int
    exact_match: float
    oracle: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthFigures:
    """How often the likeliest length was at most one step of the grid from the true one.

    Attributes:
        n: holes these shares are of; the bias was fitted on other holes.
        hit_raw: by the model's confidence alone.
        hit_unbiased: with the bias taken off.
        hit_corrected: with the prior as well; its weight was chosen on these holes.
        prior_weight: that weight.
        bias: pairs of a length and nats.
    """

    n: int
    hit_raw: float
    hit_unbiased: float
    hit_corrected: float
    prior_weight: float
    bias: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationFigures:
    """Figures of a calibration; intervals are at 95 %.

    Attributes:
        n: holes.
        num_files: files they were cut from.
        num_candidates: of all holes.
        base_rate: share of candidates that are right.
        silent: share of holes without any candidate.
        oracle: share of holes whose truth is among the candidates.
        exact_match: share of holes whose first candidate is right, ranked by held-out probability.
        exact_match_ci: its interval.
        exact_match_plain: the same, ranked by the mean of `middle_mean` and `suffix_mean` (PILL).
        exact_match_canvas: the same, ranked by `canvas_mean`, candidates of no canvas last.
        ece: distance of predicted and observed shares of first candidates (`Reliability.calibration_error`).
        brier: mean squared distance of their prediction and outcome.
        brier_constant: the same if the share that is right is always predicted; a useful score is below that.
        threshold: the one to use.
        target: precision that was asked for.
        target_reached: whether the threshold reaches it.
        coverage: share of holes answered at the threshold.
        precision: share of those that is right. The threshold was chosen on these holes, so it is a little high.
        precision_ci: its interval.
        precision_at_30: precision where 30 % of the holes are answered; None if fewer have a candidate.
        kinds: per kind of hole.
        lengths: of the search for a length; None if it was not fitted.
        no_lengths: why it was not.
        weights: by feature.
        intercept: log-odds where all features are 0.
    """

    n: int
    num_files: int
    num_candidates: int
    base_rate: float
    silent: float
    oracle: float
    exact_match: float
    exact_match_ci: tuple[float, float]
    exact_match_plain: float
    exact_match_canvas: float
    ece: float
    brier: float
    brier_constant: float
    threshold: float
    target: float
    target_reached: bool
    coverage: float
    precision: float
    precision_ci: tuple[float, float]
    precision_at_30: float | None
    kinds: Mapping[str, KindFigures]
    lengths: LengthFigures | None
    no_lengths: str
    weights: Mapping[str, float]
    intercept: float

    @classmethod
    def of(
        cls, holes: Sequence[JudgedHole], fit: ScoreFit, lengths: LengthFit | None, no_lengths: str
    ) -> CalibrationFigures:
        """Computes the figures.

        Args:
            holes: all of them.
            fit: made on the same holes.
            lengths: of the same holes; None if it could not be fitted.
            no_lengths: why it could not.
        """
        n, candidates = len(holes), [candidate for hole in holes for candidate in hole.candidates]
        chosen, base_rate, num_right = fit.choice.point, fit.reliability.base_rate, int(fit.right.sum())
        at_30 = fit.at_coverage(_COVERAGE)
        return cls(
            n=n,
            num_files=len({hole.file for hole in holes}),
            num_candidates=len(candidates),
            base_rate=sum(candidate.right for candidate in candidates) / len(candidates),
            silent=1 - len(fit.right) / n,
            oracle=sum(hole.has_truth for hole in holes) / n,
            exact_match=num_right / n,
            exact_match_ci=wilson_interval(num_right, n),
            exact_match_plain=num_right_first(holes, lambda of: 0.5 * of.middle_mean + 0.5 * of.suffix_mean) / n,
            exact_match_canvas=num_right_first(holes, lambda of: (of.on_canvas, of.canvas_mean)) / n,
            ece=fit.reliability.calibration_error,
            brier=fit.reliability.brier,
            brier_constant=base_rate * (1 - base_rate),
            threshold=chosen.threshold,
            target=fit.choice.target,
            target_reached=fit.choice.reached,
            coverage=chosen.coverage,
            precision=chosen.precision,
            precision_ci=wilson_interval(round(chosen.precision * chosen.num_shown), chosen.num_shown),
            precision_at_30=None if at_30 is None else at_30.precision,
            kinds=_by_kind(holes, fit),
            lengths=None if lengths is None else _length_figures(lengths),
            no_lengths=no_lengths,
            weights=dict(zip(NAMES, fit.logistic.weights, strict=True)),
            intercept=fit.logistic.intercept,
        )

    def result(self) -> dict[str, Any]:
        """Returns the figures JSON-ready, with four digits after the point: more than any interval warrants."""
        return _rounded(asdict(self))

    def table(self) -> Iterator[str]:
        """Yields lines for a person."""
        kinds = ", ".join(f"{kind} {figures.n}" for kind, figures in self.kinds.items())
        yield f"{'holes':<16}{self.n} of {self.num_files} files: {kinds}"
        if self.silent:
            yield f"{'':<16}{self.silent:.1%} have no candidate"
        found = f"{self.num_candidates / self.n:.1f} a hole; the truth is among them in {self.oracle:.1%}"
        yield f"{'candidates':<16}{found}"
        yield f"{'first is right':<16}{self.exact_match:.1%}{_interval(self.exact_match_ci)} ranked by this calibration"
        yield f"{'':<16}{self.exact_match_plain:.1%} by likelihood, {self.exact_match_canvas:.1%} by the canvas"
        for kind, figures in self.kinds.items():
            yield f"{'  ' + kind:<16}{figures.exact_match:.1%}, at best {figures.oracle:.1%}"
        yield f"{'probabilities':<16}ECE {self.ece:.3f}, Brier {self.brier:.3f} (a constant: {self.brier_constant:.3f})"
        words = f"shows {self.coverage:.1%}, of those {self.precision:.1%}{_interval(self.precision_ci)} right"
        yield f"{'threshold':<16}{self.threshold:.3f}: {words}"
        missed = "" if self.target_reached else " was not reached by any threshold; this is the most precise one"
        yield f"{'':<16}target {self.target:.1%}{missed}"
        if self.precision_at_30 is not None:
            yield f"{'':<16}at 30 % shown: {self.precision_at_30:.1%} right"
        yield f"{'lengths':<16}{self._length_words()}"
        weights = [f"{name} {weight:+.3f}" for name, weight in self.weights.items()]
        for start in range(0, len(weights), 4):
            yield f"{'' if start else 'weights':<16}{', '.join(weights[start : start + 4])}"

    def _length_words(self) -> str:
        if self.lengths is None:
            return f"not fitted: {self.no_lengths}"
        found = self.lengths
        return (
            f"within one step {found.hit_raw:.1%} raw, {found.hit_unbiased:.1%} without bias, "
            f"{found.hit_corrected:.1%} with prior weight {found.prior_weight:g}"
        )


def _length_figures(lengths: LengthFit) -> LengthFigures:
    rates = dict(lengths.hit_rates)
    return LengthFigures(
        n=lengths.num_judged,
        hit_raw=lengths.raw_hit_rate,
        hit_unbiased=rates[0.0],
        hit_corrected=rates[lengths.prior_weight],
        prior_weight=lengths.prior_weight,
        bias=lengths.bias,
    )


def _by_kind(holes: Sequence[JudgedHole], fit: ScoreFit) -> dict[str, KindFigures]:
    rights = iter(fit.right.tolist())
    kinds: dict[str, list[tuple[bool, bool]]] = {}
    for hole in holes:
        kinds.setdefault(hole.kind, []).append((bool(hole.candidates) and next(rights), hole.has_truth))
    return {
        kind: KindFigures(
            n=len(pairs),
            exact_match=sum(first for first, _ in pairs) / len(pairs),
            oracle=sum(truth for _, truth in pairs) / len(pairs),
        )
        for kind, pairs in kinds.items()
    }


def _interval(interval: tuple[float, float]) -> str:
    return f" [{interval[0]:.1%} {interval[1]:.1%}]"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value
