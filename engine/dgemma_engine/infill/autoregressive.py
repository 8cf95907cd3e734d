"""One middle, left to right: the model's causal mode, greedy, checked against a draft several tokens at a time.

Every pass reads the tokens decided so far and the rest of the draft; draft tokens that equal the model's choice are
kept without a pass of their own (speculative decoding, arXiv 2211.17192, greedy). Without a draft every pass gives one
token. `write` turns token ids into token ids; `propose` makes a candidate of them.

Shape legend: T judged tokens of a pass, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from dgemma_engine.infill.candidate import Proposal, Proposals
from dgemma_engine.infill.observer import WritingObserver
from dgemma_engine.infill.task import InfillTask
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.postprocess.block_end import whole_part
from dgemma_engine.postprocess.clean_candidate import cut_to_line
from dgemma_engine.prompt_lookup.draft import PromptLookup
from dgemma_engine.protocol.messages import CandidateSource, Finish
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tokenization.healed_start import HealedStart
from dgemma_engine.tokenization.vocabulary_index import openings

# Tokens of a guess that a pass checks: of as many rows as products take the time of one for.
_GUESSED = 7
# Forward passes where other candidates were found.
_SPECULATIVE_PASSES = 2
# Most tokens: where the user waits for them (each costs a pass), where this is the only candidate, and otherwise.
_MOST_ON_DEMAND, _MOST_ALONE, _MOST_OF_SEVERAL = 128, 32, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Tokens of one middle.

    Attributes:
        ids: decided tokens, including the forced ones and excluding the one that ended the middle.
        ended: whether the model ended the middle itself.
        passes: forward passes made.
    """

    ids: list[int]
    ended: bool
    passes: int


def propose(
    model: DiffusionModel, task: InfillTask, cache: PromptCache, cancel: Cancel, *, draft: str
) -> Pieces[Proposals]:
    """Writes one candidate with the causal mode; with a draft to check it takes a few passes, or gives up.

    Args:
        model: its causal mode is called once a pass; each pass is a step.
        task: the request.
        cache: the prompt; afterwards as before.
        cancel: asked before every pass.
        draft: the best candidate so far; empty if there is none.
    """
    context, hole, ends = task.context, task.hole, task.ends()
    if task.form.healing == "token":
        # A request on a blank line wants a line: an end at once would give none.
        barred_ids = ends.behind if task.is_blank_line else frozenset[int]()
        given_ids, allowed = (), HealedStart(hole.boundary.opening, task.spelling, barred_ids).allowed
    else:
        opening = openings(hole.boundary.opening, task.spelling)[0]
        given_ids, allowed = opening.given_ids, opening.allowed
    most = _MOST_ON_DEMAND if context.on_demand else _MOST_OF_SEVERAL if draft else _MOST_ALONE
    draft_ids = list[int]()
    if draft:
        ids, num_given = task.tokenizer.encode(hole.boundary.opening + draft), len(given_ids)
        # Tokens that straddle the opening are no continuation of it.
        draft_ids = ids[num_given:] if tuple(ids[:num_given]) == given_ids else []
    writing = task.observer.writing(given_ids, draft_ids) if task.observer is not None else None
    leaves = task.block_end()

    def closes(ids: list[int]) -> bool:
        if ids[-1] not in ends.last:
            return False
        # Such a token may spell what was typed of the line and end it, or spell a line break of the prefix.
        inserted = task.tokenizer.decode(ids)[len(hole.boundary.opening) :]
        return cut_to_line(inserted) != inserted

    written = yield from write(
        model,
        cache,
        hole.prompt_ids[-1],
        forced_ids=given_ids,
        allowed=allowed,
        draft_ids=draft_ids,
        banned_ids=task.banned_ids(),
        ends=(lambda token_id: token_id in ends.behind or leaves(token_id)) if leaves else ends.behind.__contains__,
        closes=closes,
        max_tokens=task.options.slot_tokens or min(context.max_middle_tokens, most),
        max_passes=1_000 if not draft or context.on_demand else _SPECULATIVE_PASSES,
        cancel=cancel,
        guess=PromptLookup(hole.around_ids, most=_GUESSED).after if model.checks_several_at_once else None,
        recorder=writing,
    )
    proposals = Proposals(finish=Finish.STABLE if written.ended else Finish.STEP_LIMIT, passes=written.passes)
    if written.ended or not draft or context.on_demand:
        text = task.text(written.ids)
        if leaves is not None and not written.ended:
            whole = whole_part(text, context.prefix)
            text = whole if whole or context.on_demand else cut_to_line(text)
        if text:
            found = Proposal(text=text, source=CandidateSource.LEFT_TO_RIGHT, is_cut=not written.ended)
            proposals.found.append(found)
        if writing is not None:
            writing.offered(text)
    return proposals


@torch.inference_mode()
def write(
    model: DiffusionModel,
    cache: PromptCache,
    last_id: int,
    *,
    forced_ids: Sequence[int],
    allowed: Callable[[Sequence[int]], Sequence[int] | None],
    draft_ids: Sequence[int],
    banned_ids: Sequence[int],
    ends: Callable[[int], bool],
    closes: Callable[[list[int]], bool],
    max_tokens: int,
    max_passes: int,
    cancel: Cancel,
    guess: Callable[[Sequence[int]], list[int]] | None = None,
    recorder: WritingObserver | None = None,
) -> Pieces[Written]:
    """Writes the likeliest next token until the middle ends; each pass is a step.

    Args:
        model: its causal mode is called once a pass.
        cache: the prompt; afterwards as before.
        last_id: the prompt's last token.
        forced_ids: tokens the middle has to begin with.
        allowed: returns the tokens that may follow those decided so far; None once any may, and then for good. Until
            then no token ends the middle.
        draft_ids: a guess at the tokens after the forced ones; may be wrong, may be empty.
        banned_ids: tokens that may not be written.
        ends: whether a token ends the middle and is no part of it.
        closes: whether the last of the tokens decided so far is the last of the middle.
        max_tokens: most tokens.
        max_passes: most forward passes.
        cancel: asked before every pass.
        guess: returns what may follow the tokens decided so far, where the draft has ended; None guesses nothing.
        recorder: receives what every pass decided; None costs nothing.
    """
    num_past = cache.length
    decided, draft = list(forced_ids), list(draft_ids)
    # The prompt's last token is run again to predict the token after it. Its first copy is put back in the end: a token
    # that is run in another batch differs by a rounding error, and answers must not depend on that.
    last = cache.copy_last()
    unread, num_read, passes = [last_id, *decided], num_past - 1, 0
    ended = False
    try:
        while not ended and passes < max_passes and len(decided) < max_tokens:
            yield
            if cancel.finish is not None:
                break
            cache.truncate(num_read)
            is_guess = guess is not None and not draft
            if guess is not None and is_guess:
                draft = guess(decided)[: max_tokens - len(decided) - 1]
            bound = list(_bound(allowed, decided, draft))
            hidden_1TD = model.encode(torch.tensor([[*unread, *draft]], device=model.device), cache)
            logits_TV = model.logits(hidden_1TD[:, len(unread) - 1 :])[0]
            passes += 1
            if banned_ids:
                logits_TV[:, list(banned_ids)] = -torch.inf
            for logits_V, allowed_ids in zip(logits_TV, bound, strict=False):
                barred_V = torch.ones_like(logits_V, dtype=torch.bool)
                barred_V[list(allowed_ids)] = False
                logits_V.masked_fill_(barred_V, -torch.inf)
            kept, closed = list[int](), False
            best_ids = logits_TV.argmax(-1).tolist()
            for place, token_id in enumerate(best_ids):
                if place >= len(bound) and ends(token_id):
                    ended = True
                    break
                kept.append(token_id)
                if closed := closes([*decided, *kept]):
                    ended = True
                    break
                if place >= len(draft) or draft[place] != token_id:
                    break
            if recorder is not None:
                # The token that ended the middle may be its last, or no part of it.
                num_agreed = len(kept) if ended and not closed else len(kept) - 1
                draft_id = draft[num_agreed] if num_agreed < len(draft) else -1
                num = num_agreed + 1
                recorder.passed(best_ids[:num], logits_TV[:num], num_agreed=num_agreed, draft_id=draft_id, ended=ended)
            # All kept tokens but the last agreed with the draft, so they have been read.
            num_read += len(unread) + max(0, len(kept) - 1)
            # What is left of a guess that was wrong is no guess at what follows.
            draft = [] if is_guess else draft[len(kept) :]
            unread = kept[-1:]
            decided += kept
    finally:
        cache.restore_last(num_past, last)
    return Written(ids=decided[:max_tokens], ended=ended, passes=passes)


def _bound(
    allowed: Callable[[Sequence[int]], Sequence[int] | None], decided: Sequence[int], draft: Sequence[int]
) -> Iterator[Sequence[int]]:
    """Yields what may follow the decided tokens, then what may follow each draft token, up to where anything may."""
    for num_drafted in range(len(draft) + 1):
        allowed_ids = allowed([*decided, *draft[:num_drafted]])
        if allowed_ids is None:
            return
        yield allowed_ids
