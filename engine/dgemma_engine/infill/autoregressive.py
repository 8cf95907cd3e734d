"""One middle, left to right: the model's causal mode, greedy, checked against a draft several tokens at a time.

Every pass reads the tokens decided so far and what is left of the draft; where the draft says what the model would
have said, its tokens are kept for nothing (speculative decoding, arXiv 2211.17192, with a greedy judge). Without a
draft every pass gives one token. Token ids in, token ids out.

Shape legend: T judged tokens of a pass, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_engine.infill.observer import WritingObserver
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.scheduling.cancellation import Cancel
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.tokenization.healed_start import HealedStart


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What came of it.

    Attributes:
        ids: decided tokens, the forced ones included, the one that ended them not.
        ended: whether the model ended the middle itself.
        passes: forward passes made.
    """

    ids: list[int]
    ended: bool
    passes: int


@torch.inference_mode()
def write(
    model: DiffusionModel,
    cache: PromptCache,
    last_id: int,
    *,
    forced_ids: Sequence[int],
    first_ids: Sequence[int] | None,
    draft_ids: Sequence[int],
    banned_ids: Sequence[int],
    ends: Callable[[int], bool],
    max_tokens: int,
    max_passes: int,
    cancel: Cancel,
    recorder: WritingObserver | None = None,
    start: HealedStart | None = None,
) -> Pieces[Written]:
    """Writes the likeliest next token until the middle ends; each pass is a piece.

    Args:
        model: its causal mode is called once a pass.
        cache: the prompt; afterwards as before.
        last_id: the prompt's last token.
        forced_ids: tokens the middle has to begin with.
        first_ids: tokens that may follow them; None allows any.
        draft_ids: a guess at the tokens behind the forced ones; may be wrong, may be empty.
        banned_ids: tokens that may not be written.
        ends: whether a token ends the middle.
        max_tokens: most tokens.
        max_passes: most forward passes.
        cancel: asked before every pass.
        recorder: told what every pass decided, if anything.
        start: text that the middle has to begin with, in whatever tokens; until it is spelt, no token ends the middle
            and no draft is read.
    """
    num_past = cache.length
    decided, draft = list(forced_ids), list(draft_ids)
    # The prompt's last token is run again, to see what the model would say behind it. Its first copy is put back in the
    # end: a token that is run in other company comes out a rounding error different, and answers must not depend on it.
    last = cache.copy_last()
    unread, num_read, passes = [last_id, *decided], num_past - 1, 0
    ended = False
    barred_V = _barred(model, first_ids)
    try:
        while not ended and passes < max_passes and len(decided) < max_tokens:
            yield
            if cancel.cancelled or cancel.expired:
                break
            cache.truncate(num_read)
            allowed_ids = None if start is None else start.allowed(decided)
            if allowed_ids is not None:
                draft = []
            hidden_1TD = model.encode(torch.tensor([[*unread, *draft]], device=model.device), cache)
            logits_TV = model.logits(hidden_1TD[:, len(unread) - 1 :])[0]
            passes += 1
            if banned_ids:
                logits_TV[:, list(banned_ids)] = -torch.inf
            if barred_V is not None and len(decided) == len(forced_ids):
                logits_TV[0].masked_fill_(barred_V, -torch.inf)
            if allowed_ids is not None:
                spelling_V = _barred(model, allowed_ids)
                assert spelling_V is not None
                logits_TV[0].masked_fill_(spelling_V, -torch.inf)
            kept: list[int] = []
            says = logits_TV.argmax(-1).tolist()
            for place, token_id in enumerate(says):
                if allowed_ids is None and ends(token_id):
                    ended = True
                    break
                kept.append(token_id)
                if place >= len(draft) or draft[place] != token_id:
                    break
            if recorder is not None:
                num_agreed = len(kept) if ended else len(kept) - 1
                draft_id = draft[num_agreed] if num_agreed < len(draft) else -1
                num = len(kept) + ended
                recorder.passed(says[:num], logits_TV[:num], num_agreed=num_agreed, draft_id=draft_id, ended=ended)
            # All kept tokens but the last agreed with the draft, so they have been read.
            num_read += len(unread) + max(0, len(kept) - 1)
            draft = draft[len(kept) :]
            unread = kept[-1:]
            decided += kept
    finally:
        cache.restore_last(num_past, last)
    return Written(ids=decided[:max_tokens], ended=ended, passes=passes)


def _barred(model: DiffusionModel, first_ids: Sequence[int] | None) -> Tensor | None:
    if first_ids is None:
        return None
    barred_V = torch.ones(model.config.vocab_size, dtype=torch.bool, device=model.device)
    barred_V[list(first_ids)] = False
    return barred_V
