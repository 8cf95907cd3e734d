"""Candidates to one ranked list with probabilities: duplicates merged, likelihoods, parse check, calibration.

Wires `likelihood`, `error_check` and `calibration`; knows proposals and texts, no canvases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from operator import attrgetter

from dgemma_engine.checkpoint.features import LEAST_ODDS, MOST_ODDS, Features
from dgemma_engine.diffusion.sampler import Noise
from dgemma_engine.infill.candidate import Proposal, Ranked
from dgemma_engine.infill.likelihood import Branch, Likelihood, likelihoods, masked_likelihoods
from dgemma_engine.infill.task import InfillTask
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.postprocess.shape import without_covered
from dgemma_engine.protocol.messages import CandidateSource, Extent
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.syntax.error_check import SyntaxCheck
from dgemma_engine.tokenization.healed_start import HealedStart
from dgemma_engine.tokenization.tokenizer import CHARACTERS_PER_TOKEN, Spelling

# Candidates that are judged; more seldom change the first.
_MOST_CANDIDATES = 8
# Characters of the line's rest that a token may begin with.
_REST_CHARACTERS = 16
# Characters of the first line after a candidate by which it is known when the model writes it again.
_AGAIN_CHARACTERS = 8
# Suffix tokens that a candidate is judged by.
_SUFFIX_TOKENS = 8


def rank(
    task: InfillTask,
    proposals: Sequence[Proposal],
    *,
    model: DiffusionModel,
    cache: PromptCache,
    noise: Noise,
    syntax: SyntaxCheck,
    cancel: Cancel,
) -> Pieces[list[Ranked]]:
    """Returns the distinct candidates that do not break the file's syntax, best first; one forward pass.

    The parse is a step and the pass is one. Without a causal mode there is a pass for each candidate, and those that
    time runs out for are left out.

    Args:
        task: the request.
        proposals: any number.
        model: judges them.
        cache: the prompt.
        noise: that hides tokens from a model without a causal mode.
        syntax: of the document.
        cancel: asked before the pass; then there is no candidate.
    """
    hole = task.hole
    # A row that is too long for its middle ends in white space: where the line goes on, that is another candidate.
    distinct = merged(proposals, "" if model.has_causal_mode else task.context.suffix)
    # A candidate that adds errors has lost already and need not be judged.
    added = {proposal.text: syntax.added_errors(proposal.text, proposal.covered) for proposal in distinct}
    passing = [proposal for proposal in distinct if added[proposal.text] <= 0]
    passing = passing[:_MOST_CANDIDATES] if model.has_causal_mode else _surest(passing)
    branches = [_branch(task, proposal) for proposal in passing]
    yield
    if not branches or cancel.cancelled:
        return []
    if model.has_causal_mode:
        opening, judges_text = hole.boundary.opening, task.form.judges_text
        line_ends = _LineEnds(task) if judges_text and task.context.extent is Extent.LINE else None
        judged = likelihoods(
            model,
            cache,
            hole.prompt_ids[-1],
            branches,
            end_ids=hole.end_ids if line_ends is None else line_ends.behind,
            banned_ids=task.banned_ids(),
            ending_with=None if line_ends is None else line_ends.joined,
            allowed=HealedStart(opening, task.spelling).allowed if judges_text and opening else None,
            going_on=_beginning_alike(task.spelling) if judges_text and line_ends is None else None,
        )
    else:
        judged = yield from masked_likelihoods(
            model, cache, branches, noise=noise, banned_ids=task.banned_ids(), cancel=cancel
        )
    ranked: list[Ranked] = []
    for proposal, likelihood, share in zip(passing, judged, shares(judged), strict=False):
        features = features_of(proposal, likelihood, added_errors=added[proposal.text], share=share)
        score = task.calibration.probability(features)
        ranked.append(Ranked(proposal=proposal, score=score, features=features))
    return sorted(ranked, key=attrgetter("score"), reverse=True)


class _LineEnds:
    """How a candidate of one line may end: with the middle, with the line, or with what stands after the cursor in it.

    A model that fills a hole in a line often writes the rest of the line again in place of an end.

    Args:
        task: the request.
    """

    def __init__(self, task: InfillTask) -> None:
        self._spelling = task.spelling
        self._rest = task.context.suffix.partition("\n")[0].rstrip()[:_REST_CHARACTERS]
        self.behind = task.ends().behind.union(self._ends_of(self._rest))

    def joined(self, token_id: int) -> Sequence[int]:
        """Returns the tokens that say what a token says and an end as well."""
        last = self._spelling.text_of(token_id) or ""
        with_rest = self._ends_of(last + self._rest) if last and self._rest else []
        longer = [one for one in with_rest if len(self._spelling.text_of(one) or "") > len(last)]
        return [*self._spelling.with_break_behind(last), *longer]

    def _ends_of(self, text: str) -> list[int]:
        """Returns the tokens that a text at the end of its line begins with; one may hold the end as well."""
        return [*self._spelling.beginning(text), *self._spelling.with_break_behind(text)]


def rank_unjudged(proposals: Sequence[Proposal], syntax: SyntaxCheck | None = None) -> list[Ranked]:
    """Returns candidates ordered by their own confidence, for when there is no time for more.

    Their score is the geometric mean probability of their tokens on the canvas; a seed that no canvas has confirmed
    scores 0.

    Args:
        proposals: any number.
        syntax: leaves out what adds syntax errors to the document; None parses nothing.
    """
    if syntax is not None:
        proposals = [one for one in proposals if syntax.added_errors(one.text, one.covered) <= 0]
    ranked: list[Ranked] = []
    for one in merged(proposals):
        logprobs = one.canvas_logprobs
        score = min(1.0, math.exp(sum(logprobs) / len(logprobs))) if logprobs else 0.0
        ranked.append(Ranked(proposal=one, score=score, features=None))
    return sorted(ranked, key=attrgetter("score"), reverse=True)


def merged(proposals: Sequence[Proposal], following: str = "") -> list[Proposal]:
    """Returns each text once, in order of first appearance; texts that differ in trailing white space are one.

    Args:
        proposals: any number.
        following: text after them; where that goes on in the same line, white space before it counts.
    """
    is_line_over = not following.split("\n", 1)[0].strip()
    by_text: dict[str, Proposal] = {}
    for proposal in proposals:
        key = proposal.text.rstrip() if is_line_over else proposal.text
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
            num_tokens=other.num_tokens,
            is_cut=other.is_cut and proposal.is_cut,
        )
    return list(by_text.values())


def _surest(proposals: Sequence[Proposal]) -> list[Proposal]:
    """Returns the candidates to be judged one after the other: the surest of the canvas, then what no canvas made.

    The surest ones by token and as a whole, in turns: a sum prefers short middles, a mean may prefer any.
    """
    made = [one for one in proposals if one.canvas_logprobs]
    sums = [sum(one.canvas_logprobs) for one in made]
    by_token = sorted(range(len(made)), key=lambda place: sums[place] / len(made[place].canvas_logprobs), reverse=True)
    as_whole = sorted(range(len(made)), key=sums.__getitem__, reverse=True)
    surest = [made[place] for place in dict.fromkeys(chain.from_iterable(zip(by_token, as_whole, strict=True)))]
    others = [one for one in proposals if not one.canvas_logprobs][: _MOST_CANDIDATES // 2]
    return surest[: _MOST_CANDIDATES - len(others)] + others


def _branch(task: InfillTask, proposal: Proposal) -> Branch:
    """Returns the tokens of a candidate, and those that stand after it once it is inserted."""
    hole, suffix, encode = task.hole, task.context.suffix, task.tokenizer.encode
    text, behind = without_covered(proposal.text, proposal.covered, suffix), hole.head_ids
    if text is not None or not task.form.suffix_head_tokens:
        middle = hole.boundary.opening + (proposal.text if text is None else text) + hole.boundary.closing
    else:
        middle, num_tokens = hole.boundary.opening + proposal.text, max(_SUFFIX_TOKENS, len(hole.head_ids))
        following = suffix[proposal.covered : proposal.covered + CHARACTERS_PER_TOKEN * num_tokens]
        behind = tuple(encode(following)[:num_tokens])
    again_ids = ()
    if task.form.judges_text and task.context.extent is not Extent.LINE:
        again = _first_word(suffix if text is not None else suffix[proposal.covered :])
        again_ids = tuple(encode(middle + again)) if again else ()
    return Branch(middle_ids=tuple(encode(middle)), suffix_ids=behind[:_SUFFIX_TOKENS], again_ids=again_ids)


def _first_word(text: str) -> str:
    """Returns the beginning of a text to within its first line that is not blank; empty where all are."""
    blank = text[: len(text) - len(text.lstrip())]
    word = text[len(blank) :].partition("\n")[0][:_AGAIN_CHARACTERS]
    return blank + word if word else ""


def _beginning_alike(spelling: Spelling) -> Callable[[int], Sequence[int]]:
    """Returns what gives the tokens whose text begins with that of a token, itself included."""

    def alike(token_id: int) -> Sequence[int]:
        text = spelling.text_of(token_id)
        return spelling.starting_with(text) if text else [token_id]

    return alike


def shares(judged: Sequence[Likelihood]) -> list[float]:
    """Returns each candidate's share of the probability of all, with what ends it and the suffix after it."""
    totals = [sum(one.middle) + (one.end or 0.0) + sum(one.suffix) for one in judged]
    most = max(totals, default=0.0)
    # One whose tokens have no probability at all has no share, unless none has any.
    weights = [math.exp(total - most) if math.isfinite(most) else 1.0 for total in totals]
    return [weight / sum(weights) for weight in weights]


def features_of(proposal: Proposal, likelihood: Likelihood, *, added_errors: int, share: float) -> Features:
    """Returns what a candidate is scored by.

    Args:
        proposal: the candidate.
        likelihood: of its tokens.
        added_errors: syntax errors that it adds to the file.
        share: see `Features.share`.
    """
    middle = likelihood.middle if likelihood.end is None else [*likelihood.middle, likelihood.end]
    is_written = proposal.source is CandidateSource.LEFT_TO_RIGHT
    canvas, seed = proposal.canvas_logprobs, proposal.seed
    return Features(
        middle_mean=sum(middle) / len(middle),
        middle_sum=sum(middle),
        suffix_mean=sum(likelihood.suffix) / len(likelihood.suffix) if likelihood.suffix else 0.0,
        canvas_mean=sum(canvas) / len(canvas) if canvas else 0.0,
        canvas_sum=sum(canvas),
        canvas_least=min(canvas, default=0.0),
        on_canvas=float(bool(canvas)),
        seed_before=math.log1p(seed.before) if seed else 0.0,
        seed_after=math.log1p(seed.after) if seed else 0.0,
        seed_places=math.log1p(seed.count) if seed else 0.0,
        agreement=float(proposal.agreement),
        length=math.log1p(len(likelihood.middle)),
        added_errors=float(max(-2, min(2, added_errors))),
        written=float(is_written),
        odds=_log_odds(sum(middle)) if is_written else 0.0,
        end=likelihood.end or 0.0,
        share=share,
    )


def _log_odds(logprob: float) -> float:
    """Returns log(p / (1 - p)) within the limits of `Features.odds`."""
    remainder = -math.expm1(min(logprob, 0.0))
    return MOST_ODDS if remainder <= 0.0 else max(LEAST_ODDS, min(MOST_ODDS, logprob - math.log(remainder)))
