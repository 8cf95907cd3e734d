"""Candidates for a hole, before and after ranking, and the outcome of one request. Plain values; knows no tensors."""

from __future__ import annotations

from dataclasses import dataclass, field

from dgemma_engine.checkpoint.features import Features
from dgemma_engine.prompt_lookup.candidates import Seed
from dgemma_engine.protocol.messages import CandidateSource, Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class MiddleEnds:
    """The tokens that end a middle.

    Attributes:
        behind: those that are no part of it.
        last: those that are its last.
    """

    behind: frozenset[int]
    last: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One candidate.

    Attributes:
        text: text to insert at the cursor, cut to what may be shown; in its final shape once all sources have proposed.
        covered: characters after the cursor that the text replaces.
        source: what proposed it first.
        canvas_logprobs: of its tokens and of the one that ended it, on a canvas; empty if no canvas proposed it.
        seed: where the text was found, if it was.
        agreement: how many other sources gave the same text.
        num_tokens: tokens to insert: those of the text without what it replaces; 0 before the text has its final shape.
        is_cut: whether the middle goes on after the text, as far as its source found out.
    """

    text: str
    source: CandidateSource
    canvas_logprobs: tuple[float, ...] = ()
    seed: Seed | None = None
    agreement: int = 0
    covered: int = 0
    num_tokens: int = 0
    is_cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A candidate with its score.

    Attributes:
        proposal: the candidate.
        score: calibrated probability that it is right, 0 to 1.
        features: what the score was made from; None where there was no time to compute it.
    """

    proposal: Proposal
    score: float
    features: Features | None


@dataclass(slots=True, kw_only=True)
class Proposals:
    """What one or several sources proposed.

    Attributes:
        found: candidates in no particular order, duplicates included.
        finish: why the source stopped.
        steps: passes over canvases.
        passes: passes of the causal mode.
    """

    found: list[Proposal] = field(default_factory=list[Proposal])
    finish: Finish = Finish.EMPTY
    steps: int = 0
    passes: int = 0


@dataclass(slots=True, kw_only=True)
class Search:
    """Outcome of candidate generation, or why it stopped early.

    Attributes:
        proposals: candidates before ranking.
        ranked: candidates, best first.
        is_judged: whether the causal mode has judged them.
        stop: why there is no answer; None if there may be one.
        prompt_tokens: tokens that the model reads before it writes.
        encoded_tokens: those of them that were not known from an earlier request.
    """

    proposals: Proposals = field(default_factory=Proposals)
    ranked: list[Ranked] = field(default_factory=list[Ranked])
    is_judged: bool = False
    stop: Finish | None = None
    prompt_tokens: int = 0
    encoded_tokens: int = 0
