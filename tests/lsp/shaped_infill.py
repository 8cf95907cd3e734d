"""The engine's answer when the model writes given texts: shaped for the cursor of the request."""

from __future__ import annotations

from dgemma_engine.postprocess.shape import shaper
from dgemma_engine.protocol.messages import Candidate, CandidateSource, Finish, Infill

from dgemma_lsp.engine_client.infill_client import ContextLimits, build_context
from dgemma_lsp.request import Request


def shaped_infill(request: Request, *texts: str) -> Infill:
    """Returns the answer to a request; the first text has the highest score."""
    shaped = {one.text: one for one in map(shaper(build_context(request, ContextLimits())), texts) if one.text}
    candidates = tuple(
        Candidate(text=one.text, covered=one.covered, score=1 / (2 + index), source=CandidateSource.DIFFUSION)
        for index, one in enumerate(shaped.values())
    )
    if not candidates:
        return Infill(text="", finish=Finish.EMPTY)
    best = candidates[0]
    return Infill(text=best.text, covered=best.covered, score=best.score, finish=Finish.STABLE, candidates=candidates)
