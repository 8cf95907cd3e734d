"""Files to learn from, and files to judge by: apart before anything else happens, and always the same ones."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Self

from dgemma_engine.errors import TrainingError
from dgemma_engine.tools.adaptation.sources import AdaptSources, DrawFile
from dgemma_engine.tools.corpus.source_lines import SourceLine
from dgemma_engine.tools.evaluation.holes.source_files import SourceFile
from dgemma_engine.tools.tuning.repository.repository_files import RepositoryFiles

MIN_FILES = 24
"""Fewer files are too few to learn from some and judge by others."""

_MIN_CHARACTERS = 300
_HELD_OUT_SHARE = 1 / 6
_MIN_HELD_OUT, _MAX_HELD_OUT = 8, 48
# How many times as often the file changed last is drawn as the one changed first; each quarter of the files halves the
# excess.
_RECENT = 3.0
# A file longer than this is drawn no more often: one file must not be most of what is learnt.
_MOST_CHARACTERS = 24_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSplit:
    """Both parts of a repository.

    Attributes:
        train: files to learn from.
        weights: how often each of them is drawn, relative to the others.
        held_out: files that are never learnt from.
    """

    train: tuple[SourceFile, ...]
    weights: tuple[float, ...]
    held_out: tuple[SourceFile, ...]

    @classmethod
    def of(cls, found: RepositoryFiles) -> Self:
        """Splits by a hash of each file's path: the same files are split alike whatever they hold.

        Args:
            found: the files; those that were changed later are drawn more often.

        Raises:
            TrainingError: they are too few; the message says how many are needed, and why others were left out.
        """
        usable = [
            (file, time_s)
            for file, time_s in zip(found.files, found.changed_s, strict=True)
            if len(file.text) >= _MIN_CHARACTERS
        ]
        if len(usable) < MIN_FILES:
            raise _too_few(len(usable), found)
        num_held_out = min(_MAX_HELD_OUT, max(_MIN_HELD_OUT, round(len(usable) * _HELD_OUT_SHARE)))
        by_hash = sorted((file.path for file, _ in usable), key=_hash)
        held_out = frozenset(by_hash[:num_held_out])
        train = [pair for pair in usable if pair[0].path not in held_out]
        return cls(
            train=tuple(file for file, _ in train),
            weights=_weights(train),
            held_out=tuple(file for file, _ in usable if file.path in held_out),
        )

    @property
    def sha256(self) -> str:
        """Names which files are in which part, whatever they hold: a training goes on while its user writes."""
        names = "\0".join([*(file.path for file in self.train), "", *(file.path for file in self.held_out)])
        return _hash(names)

    def sources(self) -> AdaptSources:
        """Returns both parts for the trainer."""
        even = [1.0] * len(self.held_out)
        return AdaptSources(
            train=_drawing(self.train, self.weights), held_out=_drawing(self.held_out, even), sha256=self.sha256
        )


def _too_few(num_usable: int, found: RepositoryFiles) -> TrainingError:
    short = len(found.files) - num_usable
    reasons = [f"{count} {reason}" for reason, count in found.left_out.items()]
    reasons += [f"{short} shorter than {_MIN_CHARACTERS} characters"] if short else []
    left_out = f" ({', '.join(reasons)} left out)" if reasons else ""
    return TrainingError(
        f"{num_usable} source files can be learnt from{left_out}, {MIN_FILES} are needed; tune a larger folder"
    )


def _weights(files: Sequence[tuple[SourceFile, float]]) -> tuple[float, ...]:
    """Returns how often each file is drawn: by its length, and more often the later it was changed."""
    times = sorted(time_s for _, time_s in files)
    # Files of one commit are as recent as each other.
    shares_later = [1 - bisect_right(times, time_s) / len(times) for _, time_s in files]
    return tuple(
        min(len(file.text), _MOST_CHARACTERS) * (1 + (_RECENT - 1) * 0.5 ** (4 * later))
        for (file, _), later in zip(files, shares_later, strict=True)
    )


def _drawing(files: Sequence[SourceFile], weights: Sequence[float]) -> DrawFile:
    lines = [
        SourceLine(lang=file.language, name=file.path.rpartition("/")[2], package=file.path, licence="", text=file.text)
        for file in files
    ]
    ends = list(accumulate(weights))

    def draw(random: Random) -> SourceLine:
        return random.choices(lines, cum_weights=ends)[0]

    return draw


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
