"""Cuts holes into source files: the same seed gives the same holes, whatever other kinds are cut beside them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from random import Random

from dgemma_engine.tools.evaluation.holes.hole_chooser import HoleChooser
from dgemma_engine.tools.evaluation.holes.hole_kind import HoleKind
from dgemma_engine.tools.evaluation.holes.snippets import Neighbours
from dgemma_engine.tools.evaluation.holes.source_files import SourceFile
from dgemma_engine.tools.evaluation.holes.task import Task

# Draws per wanted hole before giving up; the rarest kind in ordinary code needs about ten.
_PATIENCE = 200


class HoleCutter:
    """Source files, taken apart as they are drawn.

    Args:
        files: where holes are cut; large files get more.
        num_snippets: most snippets of neighbouring files a hole carries.
    """

    def __init__(self, files: Sequence[SourceFile], *, num_snippets: int = 0) -> None:
        self._files = files
        self._ends = list(accumulate(len(file.text) for file in files))
        self._choosers: dict[int, HoleChooser] = {}
        self._neighbours = Neighbours(files if num_snippets else ())
        self._num_snippets = num_snippets

    def cut(self, kind: HoleKind, count: int, seed: int) -> Iterator[Task]:
        """Yields different holes of one kind: `count`, or fewer if the files hold no more.

        Args:
            kind: what is cut out.
            count: holes wanted.
            seed: decides all draws.
        """
        random = Random(f"{seed} {kind.value}")
        seen: set[str] = set()
        for _ in range(count * _PATIENCE):
            if len(seen) == count:
                return
            index = bisect_right(self._ends, random.randrange(self._ends[-1]))
            task = self._draw(index, kind, random)
            if task is not None and task.task_id not in seen:
                seen.add(task.task_id)
                yield task

    def _draw(self, index: int, kind: HoleKind, random: Random) -> Task | None:
        file = self._files[index]
        if index not in self._choosers:
            self._choosers[index] = HoleChooser(file.text, file.language)
        hole = self._choosers[index].choose(kind, random)
        if hole is None:
            return None
        prefix, suffix = file.text[: hole.start], file.text[hole.end :]
        return Task(
            task_id=f"{kind.value}/{file.name}:{hole.start}-{hole.end}",
            kind=kind.value,
            path=file.path,
            language=file.language,
            prefix=prefix,
            suffix=suffix,
            middle=file.text[hole.start : hole.end],
            snippets=self._neighbours.snippets(file.path, prefix, suffix, self._num_snippets),
        )
