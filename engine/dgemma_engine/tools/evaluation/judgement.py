"""How good one answer is: `Task` and `Filling` in, one row of results out."""

from __future__ import annotations

import ast
import difflib
import warnings
from dataclasses import dataclass

from dgemma_engine.tools.evaluation.filling import Filling
from dgemma_engine.tools.evaluation.holes.task import PYTHON, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One hole's result; None is what was not measured. The fields of `Filling` mean the same here.

    Attributes:
        exact: whether answer and truth are equal, white space at both ends aside.
        similarity: share of characters in common, 0 to 1 (`difflib`), of the same texts.
        shown: whether there was an answer.
        parses: whether the filled file is Python; None where the true one is none.
        passed: whether the filled file passes its test.
    """

    task_id: str
    kind: str
    text: str
    exact: bool
    similarity: float
    shown: bool
    finish: str
    score: float | None
    ms: float | None
    steps: int | None
    forwards: int | None
    token_error: int | None
    parses: bool | None
    passed: bool | None


def judge(task: Task, filling: Filling, *, passed: bool | None) -> Judgement:
    """Compares an answer with the truth.

    Args:
        task: the hole.
        filling: the answer.
        passed: what running it said; None if it was not run.
    """
    text, truth = filling.text.strip(), task.middle.strip()
    can_parse = task.language == PYTHON and _parses(task.filled(task.middle))
    return Judgement(
        task_id=task.task_id,
        kind=task.kind,
        text=filling.text,
        exact=text == truth,
        similarity=difflib.SequenceMatcher(None, text, truth, autojunk=False).ratio(),
        shown=bool(text),
        finish=filling.finish,
        score=filling.score,
        ms=filling.ms,
        steps=filling.steps,
        forwards=filling.forwards,
        token_error=filling.token_error,
        parses=_parses(task.filled(filling.text)) if can_parse else None,
        passed=passed,
    )


def _parses(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
