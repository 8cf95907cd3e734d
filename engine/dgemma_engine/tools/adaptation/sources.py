"""Which file a sample is cut from: strategies that draw one, and the two parts of what an adapter is trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Self

from dgemma_engine.tools.corpus.source_lines import SourceCorpus, SourceLine

DrawFile = Callable[[Random], SourceLine]
"""Draws a file; every draw comes from the generator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptSources:
    """Files of a run.

    Attributes:
        train: draws a file to learn from.
        held_out: draws a file that losses are measured on.
        sha256: identifies both parts; a state can be resumed with these only.
    """

    train: DrawFile
    held_out: DrawFile
    sha256: str

    @classmethod
    def of_corpus(cls, corpus: SourceCorpus, *, python_weight: float) -> Self:
        """Draws a language, then one of its files.

        Args:
            corpus: both parts.
            python_weight: how many times as often Python is drawn as each other language.
        """
        return cls(
            train=_by_language(corpus.train, python_weight),
            held_out=_by_language(corpus.held_out, python_weight),
            sha256=corpus.sha256,
        )


def _by_language(files: Mapping[str, Sequence[SourceLine]], python_weight: float) -> DrawFile:
    langs = sorted(files)
    weights = [python_weight if lang == "python" else 1.0 for lang in langs]
    return lambda random: random.choice(files[random.choices(langs, weights)[0]])
