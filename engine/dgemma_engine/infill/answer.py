"""The candidates of a request that are shown -> the engine's answer to it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dgemma_engine.infill.candidate import Ranked, Search
from dgemma_engine.protocol.messages import AdapterUse, Candidate, Finish, Infill


def to_infill(
    search: Search, shown: Sequence[Ranked], *, unlikely: bool, use: AdapterUse, timings_ms: Mapping[str, float]
) -> Infill:
    """Returns the answer.

    Args:
        search: how the request ended.
        shown: candidates to send, best first; empty shows nothing.
        unlikely: whether they stay below the threshold.
        use: which adapter took part.
        timings_ms: milliseconds per stage.
    """
    proposals = search.proposals
    candidates = tuple(
        Candidate(
            text=made.text,
            score=one.score,
            source=made.source,
            covered=made.covered,
            num_tokens=made.num_tokens,
            is_cut=made.is_cut,
        )
        for one in shown
        for made in (one.proposal,)
    )
    text = candidates[0].text if candidates else ""
    silent = proposals.finish if proposals.finish is Finish.DEADLINE else Finish.EMPTY
    return Infill(
        text=text,
        covered=candidates[0].covered if candidates else 0,
        finish=search.stop or (proposals.finish if candidates else silent),
        score=candidates[0].score if candidates else 0.0,
        steps=proposals.steps,
        forwards=proposals.steps + proposals.passes,
        candidates=candidates,
        timings_ms=dict(timings_ms),
        unlikely=unlikely and bool(text),
        prompt_tokens=search.prompt_tokens,
        encoded_tokens=search.encoded_tokens,
        adapter=use,
    )
