"""A hole whose candidates were compared with the truth: what fits are made on. Plain values; knows no engine."""

from __future__ import annotations

from dataclasses import dataclass

from dgemma_engine.checkpoint.features import Features


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedCandidate:
    """One candidate.

    Attributes:
        features: what its score is to be made from.
        right: whether it is the middle that was cut out, white space at both ends aside.
    """

    features: Features
    right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedHole:
    """One hole.

    Attributes:
        hole: names it.
        kind: what sort of hole it is.
        file: key of the file it was cut from; holes of one file resemble each other.
        candidates: distinct texts; empty where the engine found none.
    """

    hole: str
    kind: str
    file: int
    candidates: tuple[JudgedCandidate, ...]

    @property
    def has_truth(self) -> bool:
        """Whether any candidate is right."""
        return any(candidate.right for candidate in self.candidates)
