"""The verdict on a tuning on a task: for a person in one sentence, and JSON-ready."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dgemma_engine.tools.tuning.task.task_comparison import TaskComparison


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """Figures before and after, and whether an adapter was kept.

    Attributes:
        task: the file.
        comparison: of the held-out rows.
        installed: the adapter's file; None where it was not better beyond chance, and nothing was changed.
        minutes: spent training.
        steps: of training.
        rows_seen: rows trained on; one counts each time it is drawn.
        num_train: rows that were learnt from.
        num_held_out: all held-out rows; those of the figures are the first of them.
        dropped: why an earlier training was not resumed; empty where there was none, or it was resumed.
    """

    task: str
    comparison: TaskComparison
    installed: Path | None
    minutes: float
    steps: int
    rows_seen: int
    num_train: int
    num_held_out: int
    dropped: str = ""

    @property
    def sentence(self) -> str:
        """The verdict, for a person."""
        found = self.comparison
        figures = (
            f"of {found.rows} held-out rows {found.solved_before} were wholly right before and {found.solved_after} "
            f"after, of their free tokens {_percent(found.tokens_before)} and {_percent(found.tokens_after)}"
        )
        end = f"; an earlier training was dropped: {self.dropped}" if self.dropped else ""
        if self.installed is None:
            figures += ", which is not better beyond chance; what was there before is unchanged"
            return f"not installed: {figures}{end}"
        return f"installed: {figures}{end}"

    def rows(self) -> list[tuple[str, str, str]]:
        """Returns a table: name, before, after."""
        found = self.comparison
        return [
            (
                "rows wholly right",
                _percent(found.solved_before / found.rows),
                _percent(found.solved_after / found.rows),
            ),
            ("free tokens right", _percent(found.tokens_before), _percent(found.tokens_after)),
        ]

    def to_json(self) -> dict[str, Any]:
        """Returns all of it; `before` and `after` are shares of held-out rows that were wholly right."""
        found = self.comparison
        return {
            "command": "tune",
            "task": self.task,
            "before": round(found.solved_before / found.rows, 4),
            "after": round(found.solved_after / found.rows, 4),
            "installed": self.installed is not None,
            "adapter": None if self.installed is None else str(self.installed),
            "p_value": round(found.p_value, 5),
            "figures": asdict(found),
            "minutes": self.minutes,
            "steps": self.steps,
            "rows_seen": self.rows_seen,
            "rows": {"train": self.num_train, "held_out": self.num_held_out},
            "message": self.sentence,
        }


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
