"""The verdict on a tuning: for a person in one sentence, and JSON-ready."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dgemma_engine.repository_adapters.about import HeldOutFigures
from dgemma_engine.repository_adapters.store import RepositoryAdapter
from dgemma_engine.tools.tuning.comparison import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneResult:
    """Figures before and after, and whether an adapter was installed.

    Attributes:
        root: of the repository.
        before: figures without the adapter.
        after: with it, on the same holes.
        comparison: the test of the difference.
        installed: the adapter; None where it is not better beyond chance, and nothing was changed.
        is_calibrated: whether a calibration was fitted with it.
        minutes: spent training.
        steps: of training.
        holes: trained on.
        num_train: files that were learnt from.
        num_held_out: files with the holes of the figures.
        dropped: why an earlier training was not resumed; empty where there was none, or it was resumed.
    """

    root: str
    before: HeldOutFigures
    after: HeldOutFigures
    comparison: Comparison
    installed: RepositoryAdapter | None
    is_calibrated: bool
    minutes: float
    steps: int
    holes: int
    num_train: int
    num_held_out: int
    dropped: str = ""

    @property
    def sentence(self) -> str:
        """The verdict, for a person."""
        figures = (
            f"of {self.before.num_holes} held-out holes {self.comparison.num_exact_before} were filled exactly before "
            f"and {self.comparison.num_exact_after} after"
        )
        end = f"; an earlier training was dropped: {self.dropped}" if self.dropped else ""
        if self.installed is None:
            figures += ", which is not better beyond chance; what was there before is unchanged"
            return f"not installed: {figures}{end}"
        return f"installed: {figures}{end}"

    def rows(self) -> list[tuple[str, str, str]]:
        """Returns a table: name, before, after."""
        names = {
            "rest": "rest of line exact",
            "line": "whole line exact",
            "edit_similarity": "edit similarity",
            "precision_shown": "right of what is shown",
            "shown": "shown",
        }
        before, after = asdict(self.before), asdict(self.after)
        return [(title, _share(before[name]), _share(after[name])) for name, title in names.items()]

    def to_json(self) -> dict[str, Any]:
        """Returns all of it; `before` and `after` are shares of rests of lines that were filled exactly."""
        return {
            "command": "tune",
            "root": self.root,
            "before": self.before.rest,
            "after": self.after.rest,
            "installed": self.installed is not None,
            "p_value": round(self.comparison.p_value, 5),
            "figures": {"before": asdict(self.before), "after": asdict(self.after)},
            "calibrated": self.is_calibrated,
            "minutes": self.minutes,
            "steps": self.steps,
            "holes": self.holes,
            "files": {"train": self.num_train, "held_out": self.num_held_out},
            "bytes": None if self.installed is None else self.installed.num_bytes,
            "message": self.sentence,
        }


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
