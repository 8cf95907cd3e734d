"""EvaluationFigures as lines of a table for a person: what was not measured is a dash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dgemma_engine.tools.evaluation.figures import EvaluationFigures
from dgemma_engine.tools.evaluation.intervals import Interval

_COLUMNS = ("parse", "len err", "pass@1", "shown", "prec", "fwds", "steps", "p50 ms", "p95 ms")


def table(kinds: Mapping[str, EvaluationFigures], overall: EvaluationFigures) -> Iterator[str]:
    """Yields the lines: one per kind, one for all."""
    columns = "".join(f"{name:>9}" for name in _COLUMNS)
    yield f"{'kind':<22}{'n':>6}{'exact [95 %]':>22}{'similarity [95 %]':>22}{columns}"
    for kind, figures in kinds.items():
        yield _line(kind, figures)
    if len(kinds) > 1:
        yield _line("all", overall)


def _line(name: str, figures: EvaluationFigures) -> str:
    shares = [figures.parse_rate, figures.length_error_mean, figures.pass_at_1, figures.shown_share]
    shares += [figures.precision_shown, figures.forwards_mean, figures.steps_mean, figures.p50_ms, figures.p95_ms]
    formats = [".3f", ".1f", ".3f", ".3f", ".3f", ".1f", ".1f", ".0f", ".0f"]
    rest = "".join(f"{_number(value, how):>9}" for value, how in zip(shares, formats, strict=True))
    exact = _interval(figures.exact_match, figures.exact_match_ci)
    similarity = _interval(figures.edit_similarity, figures.edit_similarity_ci)
    return f"{name[:21]:<22}{figures.n:>6}{exact:>22}{similarity:>22}{rest}"


def _interval(mean: float, interval: Interval) -> str:
    return f"{mean:.3f} [{interval[0]:.3f} {interval[1]:.3f}]"


def _number(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)
