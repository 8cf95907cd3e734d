"""The rows of a task for tuning: read, checked against the model and split before anything else begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dgemma_engine.errors import TaskError
from dgemma_engine.tools.tasks.task_model import TaskModel
from dgemma_engine.tools.tasks.task_rows import fingerprint, read_rows
from dgemma_engine.tools.tasks.task_split import is_held_out
from dgemma_engine.tools.tasks.task_tokens import TaskTokens

MIN_HELD_OUT = 8
"""Held-out rows that are measured however little time there is; fewer decide nothing."""

MIN_ROWS = 100
"""Of a task: one in ten is held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRows:
    """Rows as tokens.

    Attributes:
        train: learnt from.
        held_out: measured.
        sha256: of their file.
    """

    train: tuple[TaskTokens, ...]
    held_out: tuple[TaskTokens, ...]
    sha256: str

    @classmethod
    def read(cls, path: Path, model: TaskModel) -> Self:
        """Reads a file.

        Raises:
            TaskError: a row cannot be used or is too long for the model, or there are too few.
        """
        train, held_out = list[TaskTokens](), list[TaskTokens]()
        for row in read_rows(path):
            tokens = model.tokenizer.tokens(row)
            if not tokens.is_known:
                raise TaskError(f"{row.place} has free parts without text; a row to learn from needs all of its text")
            tokens.require_fits(model.canvas_tokens, model.context_tokens, row.place)
            (held_out if is_held_out(row) else train).append(tokens)
        if len(train) + len(held_out) < MIN_ROWS or len(held_out) < MIN_HELD_OUT:
            raise TaskError(
                f"{path}: holds {len(train) + len(held_out)} rows, {len(held_out)} of them held out; at least "
                f"{MIN_ROWS} different ones with {MIN_HELD_OUT} held out are needed: add some"
            )
        return cls(train=tuple(train), held_out=tuple(held_out), sha256=fingerprint(path))
