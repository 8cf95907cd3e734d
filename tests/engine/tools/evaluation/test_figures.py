"""From answers to figures: judging one answer, averaging many, and confidence intervals of the averages."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dgemma_engine.tools.evaluation.figures import EvaluationFigures, figures_by_kind
from dgemma_engine.tools.evaluation.filling import Filling
from dgemma_engine.tools.evaluation.holes.task import Task
from dgemma_engine.tools.evaluation.intervals import compare_means, mean_interval
from dgemma_engine.tools.evaluation.judgement import Judgement, judge
from dgemma_engine.tools.evaluation.report import table

TASK = Task(task_id="1", kind="line", language="python", prefix="x = ", middle="f(a)", suffix="\n")


def judged(text: str, task: Task = TASK, *, passed: bool | None = None, **cost: float) -> Judgement:
    return judge(task, Filling(text=text, finish="stable", **cost), passed=passed)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("text", "exact", "similarity", "shown", "parses"),
    [
        ("f(a)", True, 1.0, True, True),
        (" f(a) \n", True, 1.0, True, True),
        ("f(b)", False, 0.75, True, True),
        ("f(a", False, 6 / 7, True, False),
        ("", False, 0.0, False, False),
    ],
)
def test_judge_compares_text_and_parses_the_file(
    text: str, exact: bool, similarity: float, shown: bool, parses: bool
) -> None:
    judgement = judged(text)
    assert (judgement.exact, judgement.shown, judgement.parses) == (exact, shown, parses)
    assert judgement.similarity == pytest.approx(similarity)


def test_a_file_that_is_not_python_anyway_does_not_count_as_broken() -> None:
    assert judged("f(a)", replace(TASK, prefix="x = = ")).parses is None
    assert judged("f(a)", replace(TASK, language="java")).parses is None
    assert judged("\0", replace(TASK)).parses is False
    assert judged("(" * 5_000).parses is False


def test_figures_are_shares_means_and_percentiles() -> None:
    judgements = [
        judged("f(a)", passed=True, ms=10.0, steps=2, forwards=3, token_error=0),
        judged("f(b)", passed=False, ms=20.0, steps=4, forwards=5, token_error=-2),
        judged("", passed=False, ms=90.0, steps=6, forwards=7, token_error=-4),
        judged("(", passed=True, ms=30.0, steps=8, forwards=9, token_error=1),
    ]
    figures = EvaluationFigures.of(judgements, seed=0)
    assert figures.n == 4
    assert figures.exact_match == 0.25
    assert figures.edit_similarity == pytest.approx((1 + 0.75 + 0 + 0.4) / 4)
    assert (figures.parse_rate, figures.length_error_mean, figures.pass_at_1) == (0.5, 1.75, 0.5)
    assert (figures.shown_share, figures.precision_shown) == (0.75, pytest.approx(1 / 3))
    assert (figures.steps_mean, figures.forwards_mean) == (5.0, 6.0)
    assert (figures.p50_ms, figures.p95_ms) == (20.0, 90.0)
    assert figures.exact_match_ci[0] <= 0.25 <= figures.exact_match_ci[1]


def test_unmeasured_figures_are_none_and_a_dash() -> None:
    figures = EvaluationFigures.of([judged("", replace(TASK, language=""))], seed=0)
    for name in ("parse_rate", "length_error_mean", "pass_at_1", "precision_shown", "forwards_mean", "p50_ms"):
        assert getattr(figures, name) is None
    header, line = table({"line": figures}, figures)
    assert len(header) == len(line)
    assert line.rstrip().endswith("0.000 [0.000 0.000]" + 3 * "        -" + "    0.000" + 5 * "        -")


def test_kinds_are_separate_and_in_order() -> None:
    rest = replace(TASK, kind="rest")
    kinds = figures_by_kind([judged("f(a)", rest), judged("g"), judged("f(a)", rest)], seed=0)
    assert [(kind, figures.n, figures.exact_match) for kind, figures in kinds.items()] == [
        ("rest", 2, 1.0), ("line", 1, 0.0),
    ]  # fmt: skip
    lines = list(table(kinds, EvaluationFigures.of([judged("g")], seed=0)))
    assert [line.split()[0] for line in lines] == ["kind", "rest", "line", "all"]


def test_interval_of_a_constant_is_a_point() -> None:
    assert mean_interval([1.0] * 20, seed=0) == (1.0, 1.0)
    assert mean_interval([0.5], seed=0) == (0.5, 0.5)


def test_interval_of_a_share_is_about_two_standard_errors() -> None:
    values = [1.0] * 300 + [0.0] * 700
    low, high = mean_interval(values, seed=0)
    error = (0.3 * 0.7 / 1_000) ** 0.5
    assert low == pytest.approx(0.3 - 1.96 * error, abs=0.004)
    assert high == pytest.approx(0.3 + 1.96 * error, abs=0.004)
    assert mean_interval(values, seed=0) == (low, high)
    assert mean_interval(values, seed=1) != (low, high)


def test_comparison_is_paired() -> None:
    first = [float(i % 2) for i in range(400)]
    second = [value if i % 20 else 1.0 for i, value in enumerate(first)]
    found = compare_means(first, second, seed=0)
    assert (found.first, found.second) == (0.5, 0.55)
    assert found.difference == pytest.approx(0.05)
    # 20 of 400 differ, all for the better; an unpaired comparison would have an interval of 0.07 either way.
    assert found.difference_ci == pytest.approx((0.05 - 0.0214, 0.05 + 0.0214), abs=0.006)
    assert found.ratio == pytest.approx(1.1)
    assert found.ratio_ci is not None
    assert found.ratio_ci[0] < 1.1 < found.ratio_ci[1]


def test_comparison_with_a_mean_of_zero_has_no_ratio() -> None:
    found = compare_means([0.0, 0.0], [1.0, 0.0], seed=0)
    assert (found.ratio, found.ratio_ci, found.difference) == (None, None, 0.5)
    sometimes_nothing = compare_means([1.0, 0.0], [1.0, 0.0], seed=0)
    assert (sometimes_nothing.ratio, sometimes_nothing.ratio_ci) == (1.0, None)
    assert sometimes_nothing.difference_ci == (0.0, 0.0)


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [1.0, 0.0])])
def test_comparison_refuses_series_of_different_holes(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match=r"len\(first\)=.* and len\(second\)=.* must be equal and not 0"):
        compare_means(first, second, seed=0)
