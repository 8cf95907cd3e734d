"""Candidates to one ranked list with probabilities: duplicates merged, likelihoods, parse check, calibration.

Wires `likelihood`, `error_check` and `calibration`; knows proposals and texts, no canvases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dgemma_engine.checkpoint.calibration import Calibration
from dgemma_engine.checkpoint.features import Features
from dgemma_engine.infill.candidate import Proposal, merged
from dgemma_engine.infill.likelihood import Branch, Likelihood, likelihoods
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.prompting.builder import Hole
from dgemma_engine.scheduling.cancellation import Cancel
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.syntax.error_check import SyntaxCheck

# Candidates that are judged; more seldom change the first.
_MOST_CANDIDATES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A candidate with its score.

    Attributes:
        proposal: the candidate.
        score: calibrated probability that it is right, 0 to 1.
        features: what the score was made from; None where time did not allow to judge it.
    """

    proposal: Proposal
    score: float
    features: Features | None


def rank(
    proposals: Sequence[Proposal],
    hole: Hole,
    *,
    model: DiffusionModel,
    cache: PromptCache,
    encode: Callable[[str], list[int]],
    banned_ids: Sequence[int],
    syntax: SyntaxCheck,
    calibration: Calibration,
    cancel: Cancel,
) -> Pieces[list[Ranked]]:
    """Returns the distinct candidates that do not break the file's syntax, best first; one forward pass.

    The parse is a piece and the pass is one.

    Args:
        proposals: any number.
        hole: the question.
        model: judges them.
        cache: the prompt.
        encode: text to token ids.
        banned_ids: tokens no middle may hold.
        syntax: of the document.
        calibration: turns features into a probability.
        cancel: asked before the pass; then there is no candidate.
    """
    distinct = merged(list(proposals))
    # A candidate that adds errors has lost already and need not be judged.
    added = {proposal.text: syntax.added_errors(proposal.text) for proposal in distinct}
    passing = [proposal for proposal in distinct if added[proposal.text] <= 0][:_MOST_CANDIDATES]
    boundary = hole.boundary
    branches = [
        Branch(
            middle_ids=tuple(encode(boundary.begun + proposal.text + boundary.left)),
            suffix_ids=hole.judged_suffix_ids,
        )
        for proposal in passing
    ]
    yield
    if not branches or cancel.cancelled:
        return []
    judged = likelihoods(model, cache, hole.prompt_ids[-1], branches, end_ids=hole.end_ids, banned_ids=banned_ids)
    ranked: list[Ranked] = []
    for proposal, likelihood in zip(passing, judged, strict=True):
        features = _features(proposal, likelihood, added[proposal.text])
        ranked.append(Ranked(proposal=proposal, score=calibration.probability(features), features=features))
    return sorted(ranked, key=lambda candidate: candidate.score, reverse=True)


def unjudged(proposals: Sequence[Proposal]) -> list[Ranked]:
    """Returns candidates ordered by their own confidence, for when time does not allow more.

    Their score is the geometric mean probability of their tokens on the canvas; a seed that no canvas has confirmed
    scores 0.
    """
    ranked = [
        Ranked(proposal=proposal, score=_geometric_mean(proposal.canvas_logprobs), features=None)
        for proposal in merged(list(proposals))
    ]
    return sorted(ranked, key=lambda candidate: candidate.score, reverse=True)


def _features(proposal: Proposal, likelihood: Likelihood, added_errors: int) -> Features:
    middle = likelihood.middle if likelihood.end is None else [*likelihood.middle, likelihood.end]
    canvas, seed = proposal.canvas_logprobs, proposal.seed
    return Features(
        middle_mean=sum(middle) / len(middle),
        middle_sum=sum(middle),
        suffix_mean=sum(likelihood.suffix) / len(likelihood.suffix) if likelihood.suffix else 0.0,
        canvas_mean=sum(canvas) / len(canvas) if canvas else 0.0,
        canvas_least=min(canvas, default=0.0),
        on_canvas=float(bool(canvas)),
        seed_before=math.log1p(seed.before) if seed else 0.0,
        seed_after=math.log1p(seed.after) if seed else 0.0,
        seed_places=math.log1p(seed.count) if seed else 0.0,
        agreement=float(proposal.agreement),
        length=math.log1p(len(likelihood.middle)),
        added_errors=float(max(-2, min(2, added_errors))),
    )


def _geometric_mean(logprobs: Sequence[float]) -> float:
    return min(1.0, math.exp(sum(logprobs) / len(logprobs))) if logprobs else 0.0
