"""Candidates for a hole, before and after ranking, and the outcome of one request. Plain values; knows no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dgemma_engine.checkpoint.features import Features
from dgemma_engine.prompt_lookup.candidates import Seed
from dgemma_engine.protocol.messages import Candidate, CandidateSource, Finish, Infill


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
    """

    text: str
    source: CandidateSource
    canvas_logprobs: tuple[float, ...] = ()
    seed: Seed | None = None
    agreement: int = 0
    covered: int = 0


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
    """

    proposals: Proposals = field(default_factory=Proposals)
    ranked: list[Ranked] = field(default_factory=list[Ranked])
    is_judged: bool = False
    stop: Finish | None = None

    def answer(self, shown: Sequence[Ranked], timings_ms: dict[str, float], *, unlikely: bool = False) -> Infill:
        """Returns the answer as a message.

        Args:
            shown: what to show of the ranked candidates, best first; may be empty.
            timings_ms: of the stages.
            unlikely: whether the first of `shown` is below the threshold.
        """
        proposals = self.proposals
        silent = proposals.finish if proposals.finish is Finish.DEADLINE else Finish.EMPTY
        return Infill(
            text=shown[0].proposal.text if shown else "",
            covered=shown[0].proposal.covered if shown else 0,
            finish=self.stop or (proposals.finish if shown else silent),
            score=shown[0].score if shown else 0.0,
            steps=proposals.steps,
            forwards=proposals.steps + proposals.passes,
            candidates=tuple(
                Candidate(
                    text=one.proposal.text,
                    score=one.score,
                    source=one.proposal.source,
                    covered=one.proposal.covered,
                )
                for one in shown
            ),
            timings_ms=timings_ms,
            unlikely=unlikely and bool(shown and shown[0].proposal.text),
        )


def merged(proposals: Sequence[Proposal]) -> list[Proposal]:
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
            covered=other.covered,
        )
    return list(by_text.values())
