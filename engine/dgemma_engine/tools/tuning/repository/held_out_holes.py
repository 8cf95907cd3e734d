"""Holes in held-out files, as an editor asks about them: the same for the same files and seed, kinds taking turns."""

from __future__ import annotations

from collections.abc import Sequence

from dgemma_engine.tools.calibration.samples import SampledHole
from dgemma_engine.tools.corpus.stable_hash import stable_hash
from dgemma_engine.tools.evaluation.holes.cutting import HoleCutter
from dgemma_engine.tools.evaluation.holes.hole_kind import HoleKind
from dgemma_engine.tools.evaluation.holes.source_files import SourceFile

MAX_HOLES = 400
"""More are not measured, however much time there is."""

# A line or the rest of one is asked for about twice as often as several.
_TURNS = (HoleKind.REST, HoleKind.LINE, HoleKind.REST, HoleKind.LINE, HoleKind.MULTILINE)


def held_out_holes(files: Sequence[SourceFile], *, seed: int) -> list[SampledHole]:
    """Returns at most `MAX_HOLES` holes; a run that has time for some of them takes the first.

    Args:
        files: held out.
        seed: decides all draws.
    """
    cutter = HoleCutter(files)
    counts = {kind: MAX_HOLES * _TURNS.count(kind) // len(_TURNS) for kind in _TURNS}
    of_kind = {kind: iter([*cutter.cut(kind, count, seed)]) for kind, count in counts.items()}
    turns = [[task for task in (next(of_kind[kind], None) for kind in _TURNS) if task] for _ in range(MAX_HOLES)]
    return [SampledHole(hole=task.task_id, file=stable_hash(task.path), task=task) for turn in turns for task in turn][
        :MAX_HOLES
    ]
