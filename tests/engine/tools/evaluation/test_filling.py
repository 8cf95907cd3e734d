from __future__ import annotations

import itertools

import pytest
from dgemma_engine.infill.options import Decode, InfillOptions
from dgemma_engine.protocol.messages import Extent, Snippet
from dgemma_engine.tools.evaluation.filling import CopyFiller, EngineFiller
from dgemma_engine.tools.evaluation.holes.task import Task
from dgemma_engine.tools.evaluation.length import Length

from tests.engine.tools.evaluation.table_engine import TableEngine


def task(prefix: str = "x = ", middle: str = "a + b", suffix: str = "\n", **other: object) -> Task:
    return Task(task_id="1", kind="line", prefix=prefix, middle=middle, suffix=suffix, **other)  # pyright: ignore[reportArgumentType]


def filler(engine: TableEngine, length: str = "auto", options: InfillOptions | None = None) -> EngineFiller:
    ticks = itertools.count(0.0, 0.25)
    return EngineFiller(
        engine,
        options=options or InfillOptions(),
        length=Length.parse(length),
        deadline_ms=9_000,
        seed=7,
        clock=lambda: next(ticks),
    )


def test_engine_gets_an_editors_request_without_the_truth() -> None:
    engine = TableEngine({"x = ": "a + b + c"})
    snippets = (Snippet(path="b.py", text="y"),)
    filling = filler(engine).fill(task(path="a.py", language="python", snippets=snippets))
    ((context, options),) = engine.asked
    assert (context.prefix, context.suffix, context.path, context.language) == ("x = ", "\n", "a.py", "python")
    assert (context.snippets, context.extent, context.seed, context.deadline_ms) == (snippets, Extent.LINE, 7, 9_000)
    assert options == InfillOptions()
    assert (filling.text, filling.score, filling.finish) == ("a + b + c", 0.5, "stable")
    assert (filling.steps, filling.forwards, filling.token_error) == (3, 4, 2)
    # The clock advances 250 ms at each reading: before the request, at the engine's deadline check, after the answer.
    assert filling.ms == 500


def test_middles_with_a_line_break_may_reach_over_lines() -> None:
    engine = TableEngine()
    filler(engine).fill(task(middle="a\nb"))
    assert engine.asked[0][0].extent is Extent.BLOCK
    assert engine.asked[0][0].max_middle_tokens == 512


@pytest.mark.parametrize(
    ("length", "middle", "expected"),
    [("auto", "a + b", None), ("oracle", "a + b", 3), ("oracle", " ", 1), ("fixed:8", "a + b", 8)],
)
def test_length_is_passed_to_the_engine(length: str, middle: str, expected: int | None) -> None:
    engine = TableEngine()
    filler(engine, length).fill(task(middle=middle))
    assert engine.asked[0][1].slot_tokens == expected


def test_a_length_beyond_the_budget_raises_the_budget() -> None:
    engine = TableEngine()
    filler(engine, "fixed:700").fill(task())
    assert engine.asked[0][0].max_middle_tokens == 700
    filler(engine, "oracle").fill(task(middle="a " * 5_000))
    assert (engine.asked[1][0].max_middle_tokens, engine.asked[1][1].slot_tokens) == (4_096, 4_096)


def test_all_options_but_the_length_are_passed_on() -> None:
    engine = TableEngine()
    options = InfillOptions(decode=Decode.LEFT_TO_RIGHT, fill=False, seeds=False, silence=False)
    filler(engine, options=options).fill(task())
    assert engine.asked[0][1] == options


@pytest.mark.parametrize("text", ["", "fixed", "fixed:", "fixed:0", "fixed:-1", "fixed:4097", "fixed:1.5", "Oracle"])
def test_length_refuses_anything_else(text: str) -> None:
    with pytest.raises(ValueError, match=rf"{text!r} must be auto, oracle or fixed:N with N from 1 to 4096"):
        Length.parse(text)


@pytest.mark.parametrize(
    ("prefix", "middle", "expected"),
    [
        ("    a = 1\n    ", "b = 2", "a = 1"),
        ("    a = 1\n", "    b = 2", "    a = 1"),
        ("    a = 1\n        ", "b = 2", "a = 1"),
        ("if x:\n    a = 1\n\n\n    ", "b = 2", "a = 1"),
        ("x.append(1)\nx.app", "end(2)", "end(1)"),
        ("x.append(1)\ny = ", "2", "x.append(1)"),
        ("    a = 1\n    b = 2\n    ", "c = 3\n    d = 4", "a = 1\n    b = 2"),
        ("a = 1\n", "b = 2\nc = 3\nd = 4", "a = 1"),
        ("a = ", "1", ""),
        ("", "1", ""),
        ("\n\n", "1", ""),
    ],
)
def test_copy_repeats_text_above_the_cursor(prefix: str, middle: str, expected: str) -> None:
    filling = CopyFiller().fill(task(prefix, middle))
    assert filling.text == expected
    assert (filling.ms, filling.forwards, filling.token_error) == (None, None, None)
