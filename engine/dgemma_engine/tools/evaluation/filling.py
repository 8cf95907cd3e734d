"""What fills a hole: a loaded engine, or the baseline that copies the lines above. `Task` in, `Filling` out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from dgemma_engine.infill.options import InfillOptions
from dgemma_engine.postprocess.shape import without_covered
from dgemma_engine.protocol.messages import Context, Extent, Infill
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tools.evaluation.holes.task import Task
from dgemma_engine.tools.evaluation.length import Length

# Budgets in tokens: generous, so that the model ends a middle, not the budget.
_LINE_TOKENS = 128
_BLOCK_TOKENS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """An answer and its cost; None is what was not measured.

    Attributes:
        text: what goes into the hole; empty if nothing was shown.
        finish: why the answer ended there.
        score: the engine's probability of being right, 0 to 1.
        ms: milliseconds from question to answer, with nothing encoded beforehand.
        steps: denoising steps.
        forwards: passes through the model.
        token_error: tokens of the answer less those of the truth.
    """

    text: str
    finish: str
    score: float | None = None
    ms: float | None = None
    steps: int | None = None
    forwards: int | None = None
    token_error: int | None = None


class Filler(Protocol):
    """Fills holes one at a time."""

    def fill(self, task: Task) -> Filling:
        """Answers as if the truth were unknown, but for what the evaluation grants on purpose."""
        ...


class LoadedEngine(Protocol):
    """What the evaluation needs of an engine; `dgemma_engine.infill.engine.Engine` has it."""

    model_name: str
    device: str

    def infill(self, context: Context, cancel: Cancel, *, options: InfillOptions) -> Infill:
        """Fills one hole."""
        ...

    def count_tokens(self, text: str) -> int:
        """Returns how many tokens a text has."""
        ...


class EngineFiller:
    """Asks an engine, every hole as a document of its own: nothing is reused from one to the next.

    Args:
        engine: the engine.
        options: what it may do; `length` decides its `slot_tokens`.
        length: what it is told of the length.
        deadline_ms: time for one answer.
        seed: of its random draws.
        clock: seconds that never go backwards.
    """

    def __init__(
        self,
        engine: LoadedEngine,
        *,
        options: InfillOptions,
        length: Length,
        deadline_ms: float,
        seed: int,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._options = options
        self._length = length
        self._deadline_ms = deadline_ms
        self._seed = seed
        self._clock = clock

    def fill(self, task: Task) -> Filling:
        """Answers one hole within the deadline."""
        true_tokens = self._engine.count_tokens(task.middle)
        slot_tokens = self._length.slot_tokens(true_tokens)
        budget = _LINE_TOKENS if task.extent is Extent.LINE else _BLOCK_TOKENS
        context = Context(
            document=task.task_id,
            prefix=task.prefix,
            suffix=task.suffix,
            path=task.path,
            language=task.language,
            snippets=task.snippets,
            extent=task.extent,
            max_middle_tokens=max(budget, slot_tokens or 0),
            deadline_ms=self._deadline_ms,
            seed=self._seed,
        )
        started_s = self._clock()
        cancel = Cancel(deadline_s=started_s + self._deadline_ms / 1e3, clock=self._clock)
        infill = self._engine.infill(context, cancel, options=replace(self._options, slot_tokens=slot_tokens))
        text = without_covered(infill.text, infill.covered, task.suffix)
        text = infill.text if text is None else text
        return Filling(
            text=text,
            finish=infill.finish.value,
            score=infill.score,
            ms=(self._clock() - started_s) * 1e3,
            steps=infill.steps,
            forwards=infill.forwards,
            token_error=self._engine.count_tokens(text) - true_tokens,
        )


class CopyFiller:
    """The baseline without a model: writes what stands above the hole once more, as many lines as are missing."""

    def fill(self, task: Task) -> Filling:
        """Answers with the last lines above; empty in the first line."""
        above, line_break, left = task.prefix.rpartition("\n")
        if not line_break:
            return Filling(text="", finish="copied")
        lines = above.rstrip().splitlines()[-len(task.middle.splitlines()) :] if task.middle else []
        text = "\n".join(lines)
        # What already stands before the cursor is not written twice: the indent, or a beginning in common.
        text = text.removeprefix(left) if text.startswith(left) else text.lstrip()
        return Filling(text=text, finish="copied")
