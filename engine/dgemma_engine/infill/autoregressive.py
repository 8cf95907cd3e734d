"""One middle from left to right: the model's causal mode, greedy, checked against a draft several tokens at a time.

Every pass reads the tokens decided so far and the rest of the draft; draft tokens that equal the model's choice are
kept without a pass of their own (speculative decoding, arXiv 2211.17192, greedy). Without a draft every pass gives one
token. Token ids in, token ids out.

Shape legend: T judged tokens of a pass, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import torch
from torch import Tensor

from dgemma_engine.infill.observer import WritingObserver
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.scheduling.timing import Cancel

# Tokens of each place that may begin another way.
_MOST_TOKENS = 8


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """A beginning that leaves what was written at its last token.

    Attributes:
        ids: its tokens.
        logprob: of them all, nats.
    """

    ids: tuple[int, ...]
    logprob: float


@dataclass(slots=True)
class Forks:
    """The beginnings that leave one middle, the likeliest of each place first."""

    _places: list[list[Fork]] = field(default_factory=list[list[Fork]])
    _logprob: float = 0.0

    def passed(self, ids: Sequence[int], token_id: int, logits_V: Tensor) -> None:
        """Receives a decision, in order.

        Args:
            ids: the tokens before.
            token_id: the token that was chosen.
            logits_V: of all tokens; -inf where one is not allowed.
        """
        norm = logits_V.logsumexp(-1)
        best, best_ids = (logits_V - norm).topk(min(_MOST_TOKENS, len(logits_V)))
        likely = zip(best_ids.tolist(), best.tolist(), strict=True)
        self._places.append(
            [
                Fork(ids=(*ids, other_id), logprob=self._logprob + logprob)
                for other_id, logprob in likely
                if other_id != token_id and logprob > float("-inf")
            ]
        )
        self._logprob += float(logits_V[token_id] - norm)

    def best(self, leads_away: Callable[[Sequence[int]], bool]) -> Fork | None:
        """Returns the likeliest beginning that leads to another text; None if no place has any.

        Args:
            leads_away: whether a middle that begins with these tokens is another text.
        """
        first = (next((fork for fork in place if leads_away(fork.ids)), None) for place in self._places)
        return max((fork for fork in first if fork is not None), key=attrgetter("logprob"), default=None)


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
    closes: Callable[[Sequence[int]], bool],
    max_tokens: int,
    max_passes: int,
    cancel: Cancel,
    guess: Callable[[Sequence[int]], list[int]] | None = None,
    recorder: WritingObserver | None = None,
    forks: Forks | None = None,
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
        forks: receives every decision; likewise.
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
                if forks is not None:
                    forks.passed([*decided, *kept], token_id, logits_TV[place])
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
