"""A candidate for a hole, where it comes from, and all that were found: plain values. Knows no tensors."""

from __future__ import annotations

from dataclasses import dataclass, field

from dgemma_engine.prompt_lookup.candidates import Seed
from dgemma_engine.protocol.messages import CandidateSource, Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One candidate.

    Attributes:
        text: text to insert at the cursor, cut to what may be shown.
        source: what proposed it first.
        canvas_logprobs: of its tokens and of the one that ended it, on a canvas; empty if no canvas proposed it.
        seed: the place it was found at, if it was.
        agreement: how many other ways of proposing gave the same text.
    """

    text: str
    source: CandidateSource
    canvas_logprobs: tuple[float, ...] = ()
    seed: Seed | None = None
    agreement: int = 0


@dataclass(slots=True, kw_only=True)
class Proposed:
    """What was found.

    Attributes:
        proposals: candidates in no particular order, duplicates included.
        finish: why the canvases stopped.
        steps: passes over canvases.
        passes: passes of the causal mode.
    """

    proposals: list[Proposal] = field(default_factory=list[Proposal])
    finish: Finish = Finish.EMPTY
    steps: int = 0
    passes: int = 0


def merged(proposals: list[Proposal]) -> list[Proposal]:
    """Returns each text once, in order of first appearance; texts that differ in trailing white space are one."""
    by_text: dict[str, Proposal] = {}
    for proposal in proposals:
        key = proposal.text.rstrip()
        other = by_text.get(key)
        if other is None:
            by_text[key] = proposal
            continue
        by_text[key] = Proposal(
            text=other.text,
            source=other.source,
            canvas_logprobs=max(
                (other.canvas_logprobs, proposal.canvas_logprobs),
                key=lambda logprobs: sum(logprobs) / len(logprobs) if logprobs else float("-inf"),
            ),
            seed=other.seed or proposal.seed,
            agreement=other.agreement + (other.source is not proposal.source),
        )
    return list(by_text.values())
