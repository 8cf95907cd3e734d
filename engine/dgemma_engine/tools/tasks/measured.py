"""Rows solved one after the other, and how many of their answers are right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from dgemma_engine.tools.tasks.solver import Solution, Solver
from dgemma_engine.tools.tasks.task_rows import TaskRow
from dgemma_engine.tools.tasks.task_tokens import TaskTokenizer, TaskTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """A row with what was found.

    Attributes:
        row: the row.
        tokens: of the row.
        solution: what was found.
        num_right: free tokens that are those of the row; None where its text is not known.
    """

    row: TaskRow
    tokens: TaskTokens
    solution: Solution
    num_right: int | None

    @property
    def is_right(self) -> bool | None:
        """Whether every free token is right; None where the text is not known."""
        return None if self.num_right is None else self.num_right == len(self.solution.ids)


def solve_rows(rows: Iterable[TaskRow], tokenizer: TaskTokenizer, solver: Solver) -> Iterator[Solved]:
    """Yields rows as they are solved.

    Args:
        rows: to solve.
        tokenizer: of the solver's model.
        solver: solves them.

    Raises:
        TaskError: a row is too long for the model.
    """
    for row in rows:
        tokens = tokenizer.tokens(row)
        solution = solver.solve(tokens, place=row.place)
        yield Solved(
            row=row,
            tokens=tokens,
            solution=solution,
            num_right=solution.num_right(tokens) if tokens.is_known else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFigures:
    """Sums over rows.

    Attributes:
        rows: how many were solved or tried.
        judged: those whose text is known.
        solved: rows of them that are right as a whole.
        free_tokens: of the judged rows.
        right_tokens: of those.
        steps: of all rows together.
    """

    rows: int = 0
    judged: int = 0
    solved: int = 0
    free_tokens: int = 0
    right_tokens: int = 0
    steps: int = 0

    def plus(self, one: Solved) -> TaskFigures:
        """Returns the sums with one more row."""
        is_known = one.num_right is not None
        return TaskFigures(
            rows=self.rows + 1,
            judged=self.judged + is_known,
            solved=self.solved + bool(one.is_right),
            free_tokens=self.free_tokens + (len(one.solution.ids) if is_known else 0),
            right_tokens=self.right_tokens + (one.num_right or 0),
            steps=self.steps + one.solution.steps,
        )

    def to_json(self) -> dict[str, Any]:
        """Returns counts and shares, JSON-ready; a share of nothing is None."""
        return {
            "rows": self.rows,
            "judged": self.judged,
            "solved": self.solved,
            "share": _share(self.solved, self.judged),
            "token_share": _share(self.right_tokens, self.free_tokens),
            "steps_mean": _share(self.steps, self.rows),
        }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
