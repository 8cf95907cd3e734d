"""Rows of a task as tokens: what the model reads first, and the canvas on which it solves them.

The prompt is causal: the start mark, the whole row with a blank mark for each token to be found, and a line break. The
canvas repeats the row from the beginning of the line in which its first free token stands: given tokens are clamped
between free ones, and all see each other. Because it begins with a line and not with the free token, what was asked
stands at the same distance before every position, however many given tokens a row begins with.

Each part is tokenised by itself, and names of special tokens in its text are text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from dgemma_engine.diffusion.canvas import Row
from dgemma_engine.errors import TaskError
from dgemma_engine.tokenization.tokenizer import Tokenizer
from dgemma_engine.tools.tasks.task_rows import Part, TaskRow

UNKNOWN = -1
"""In place of the token of a free position whose text is not known."""

_KNOWN_TEXTS = 4_096


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TaskTokens:
    """A row in token ids.

    Attributes:
        prompt: what is read first, int32 [P].
        canvas: what is to stand on the canvas, int32 [L]; `UNKNOWN` where that is not known.
        is_free: bool [L], False where it is given.
    """

    prompt: NDArray[np.int32]
    canvas: NDArray[np.int32]
    is_free: NDArray[np.bool_]

    @property
    def length(self) -> int:
        """Positions in all."""
        return len(self.prompt) + len(self.canvas)

    @property
    def is_known(self) -> bool:
        """Whether the text of all free positions is known."""
        return bool((self.canvas != UNKNOWN).all())

    def require_fits(self, canvas_tokens: int, context_tokens: int, place: str) -> None:
        """Makes sure that a model can read it.

        Args:
            canvas_tokens: most positions of the model's canvas.
            context_tokens: most positions in all.
            place: of the row.

        Raises:
            TaskError: it is too long.
        """
        if len(self.canvas) > canvas_tokens:
            raise TaskError(
                f"{place} needs a canvas of {len(self.canvas)} tokens, and the model has {canvas_tokens}; shorten it, "
                "or end a line before its first free text"
            )
        if self.length > context_tokens:
            raise TaskError(f"{place} needs {self.length} tokens, and the model reads {context_tokens}; shorten it")

    def canvas_row(self, seed: int) -> Row:
        """Returns the row of a canvas.

        Args:
            seed: of its draws.
        """
        runs = [(free, len(list(run))) for free, run in groupby(self.is_free.tolist())]
        between, at, num_free = list[tuple[int, tuple[int, ...]]](), 0, 0
        for free, length in runs:
            if free:
                num_free += length
            else:
                between.append((num_free, tuple(self.canvas[at : at + length].tolist())))
            at += length
        opening = between.pop(0)[1] if between and between[0][0] == 0 else ()
        head = between.pop()[1] if between and between[-1][0] == num_free else ()
        return Row(num_free=num_free, opening_ids=opening, between=tuple(between), head_ids=head, seed=seed)


class TaskTokenizer:
    """Makes tokens of rows for one model.

    Args:
        tokenizer: of the model.
        start_id: begins every prompt.
        blank_id: stands in the prompt for a token that is to be found; no text has it.
    """

    def __init__(self, tokenizer: Tokenizer, *, start_id: int, blank_id: int) -> None:
        self._tokenizer, self._start_id, self._blank_id = tokenizer, start_id, blank_id
        self._ids = lru_cache(_KNOWN_TEXTS)(tokenizer.encode)

    def tokens(self, row: TaskRow) -> TaskTokens:
        """Returns the tokens of a row.

        Raises:
            TaskError: a text has no token.
        """
        context, parts = _cut(row)
        canvas, is_free = list[int](), list[bool]()
        for part in parts:
            ids = self._encode(part, row)
            canvas += ids
            is_free += [part.kind == "free"] * len(ids)
        free = np.array(is_free, np.bool_)
        asked = np.where(free, self._blank_id, np.array(canvas, np.int32)).tolist()
        prompt = [self._start_id, *self._tokenizer.encode(context), *asked, *self._ids("\n")]
        return TaskTokens(prompt=np.array(prompt, np.int32), canvas=np.array(canvas, np.int32), is_free=free)

    def texts(self, row: TaskRow, tokens: TaskTokens, found: list[int]) -> Iterator[str]:
        """Yields the text of each part of a row.

        Args:
            row: the row.
            tokens: of the row.
            found: tokens of its free positions, in order.
        """
        at = 0
        for part in row.parts:
            if part.kind == "given":
                yield part.text or ""
            else:
                length = len(self._encode(part, row))
                yield self._tokenizer.decode(found[at : at + length])
                at += length

    def text_of(self, token_id: int) -> str:
        """Returns the text of one token; empty for a special one."""
        return self._tokenizer.decode([token_id])

    def _encode(self, part: Part, row: TaskRow) -> list[int]:
        if part.text is None:
            return [UNKNOWN] * part.num_tokens
        ids = self._ids(part.text)
        if part.kind == "free" and not ids:
            raise TaskError(f"{row.place} has free text that is no token of the model: {part.text[:40]!r}")
        return ids


def _cut(row: TaskRow) -> tuple[str, list[Part]]:
    """Returns the given text that only the prompt holds, and the parts that the canvas holds too."""
    first = next(index for index, part in enumerate(row.parts) if part.kind == "free")
    before = "".join(part.text or "" for part in row.parts[:first])
    cut = before.rfind("\n") + 1
    opening = [Part("given", before[cut:])] if before[cut:] else []
    return before[:cut], [*opening, *row.parts[first:]]
