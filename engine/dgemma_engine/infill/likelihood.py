"""How likely each candidate is, from left to right: in one causal pass, or in blocks before which nothing is masked.

A candidate is judged by its own tokens given the prompt, by what would end it, and by the first suffix tokens given
both (PILL, see docs/decisions/0009). A model without a causal mode gives the same with masks in place of all that
follows (docs/decisions/0031). Token ids in, log-probabilities out.

Shape legend: T tokens of all branches together, K blocks, L positions of a canvas, N judged tokens, D hidden,
V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from dgemma_engine.diffusion.sampler import Noise
from dgemma_engine.model import attention_masks as masks
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.scheduling.timing import Cancel

# Tokens that are judged together without a causal mode: each given what stands before the first of them.
_BLOCK_TOKENS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One way to go on from the prompt.

    Attributes:
        middle_ids: the candidate, at least one token.
        suffix_ids: the first tokens that stand after it; may be empty.
        again_ids: the candidate and the beginning of what stands after it, as one text: a model may write that again in
            place of an end. Empty where it is not looked for.
    """

    middle_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    again_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """Log-probabilities of one branch, nats.

    Attributes:
        middle: of each token of the candidate.
        end: that the middle ends there, by one of the tokens that end it; None for a model that has none.
        suffix: of each suffix token.
    """

    middle: list[float]
    end: float | None
    suffix: list[float]


@torch.inference_mode()
def likelihoods(
    model: DiffusionModel,
    cache: PromptCache,
    last_id: int,
    branches: Sequence[Branch],
    *,
    end_ids: frozenset[int],
    banned_ids: Sequence[int],
    ending_with: Callable[[int], Sequence[int]] | None = None,
    allowed: Callable[[Sequence[int]], Sequence[int] | None] | None = None,
    going_on: Callable[[int], Sequence[int]] | None = None,
) -> list[Likelihood]:
    """Judges branches of one prompt.

    Args:
        model: its causal mode is called once.
        cache: the prompt; afterwards as before.
        last_id: the prompt's last token, which is run again to predict the first token of each branch.
        branches: candidates, at least one.
        end_ids: tokens that end a middle; empty for a model that was not trained to fill.
        banned_ids: tokens that get no probability.
        ending_with: returns the tokens that say what a candidate's last token says and end the middle as well; None
            where there are none.
        allowed: returns the tokens that may follow these of a candidate, None if all may; asked up to the first None. A
            candidate's token is one of them in any case.
        going_on: returns the tokens that a branch may have in place of the last of `again_ids`, itself included; None
            where no branch has any.
    """
    num_past = cache.length
    ids, row_of, offsets = list[int](), list[int](), list[int]()
    starts, shown_from = list[int](), list[int]()
    rows = [(branch.middle_ids, branch.suffix_ids) for branch in branches]
    rows += [(branch.again_ids, ()) for branch in branches if branch.again_ids]
    for index, (middle_ids, suffix_ids) in enumerate(rows):
        starts.append(len(ids))
        row_ids = [last_id, *middle_ids, *suffix_ids]
        ids += row_ids
        row_of += [index] * len(row_ids)
        offsets += range(len(row_ids))
        # The suffix is to follow from the candidate, so it does not read its own copy beside the prompt.
        shown_from += [cache.seen_from] * (1 + len(middle_ids)) + [cache.prompt_start] * len(suffix_ids)
    device = model.device
    position_T = torch.tensor(offsets, device=device) + (num_past - 1)
    attention_masks = masks.branches(
        torch.tensor(row_of, device=device),
        position_T,
        num_past=num_past,
        sliding_window=model.config.sliding_window,
        hidden_from=num_past - 1,
        shown_from_L=torch.tensor(shown_from, device=device),
    )
    hidden_1TD = model.encode(
        torch.tensor([ids], device=device), cache, positions_BT=position_T[None], attention_masks=attention_masks
    )
    cache.truncate(num_past)
    logits_TV = model.logits(hidden_1TD)[0]
    if banned_ids:
        logits_TV[:, list(banned_ids)] = -torch.inf
    # What follows a token of the same branch; the last token of a branch predicts nothing that is asked for.
    norm_T = logits_TV.logsumexp(-1)
    if allowed is not None:
        for start, (middle_ids, _) in zip(starts, rows, strict=True):
            for place, token_id in enumerate(middle_ids):
                if (able := allowed(middle_ids[:place])) is None:
                    break
                norm_T[start + place] = logits_TV[start + place, [*{token_id, *able}]].logsumexp(-1)
    next_T = torch.tensor([*ids[1:], 0], device=device)
    next_logprobs = (logits_TV.gather(-1, next_T[:, None])[:, 0] - norm_T).tolist()
    end_logprobs: list[float] | None = None
    if end_ids:
        end_logprobs = (logits_TV[:, sorted(end_ids)].logsumexp(-1) - norm_T).tolist()
    answers: list[Likelihood] = []
    again_starts = iter(starts[len(branches) :])
    for start, branch in zip(starts, branches, strict=False):
        end = start + len(branch.middle_ids)
        middle, ended = next_logprobs[start:end], None if end_logprobs is None else end_logprobs[end]
        if ended is not None and ending_with is not None and (joined := ending_with(branch.middle_ids[-1])):
            # It ends in either of two ways: with its last token and an end, or with a token that is both.
            at_once = float(logits_TV[end - 1, list(joined)].logsumexp(-1) - norm_T[end - 1])
            last = _log_sum(middle[-1], at_once)
            middle[-1], ended = last, _log_sum(middle[-1] + ended, at_once) - last
        if ended is not None and going_on is not None and branch.again_ids:
            again_start = next(again_starts)
            last = again_start + len(branch.again_ids) - 1
            same = float(logits_TV[last, list(going_on(branch.again_ids[-1]))].logsumexp(-1) - norm_T[last])
            # A candidate that holds a banned token has no probability in either way.
            if math.isfinite(sum(middle)):
                ended = _log_sum(sum(middle) + ended, sum(next_logprobs[again_start:last]) + same) - sum(middle)
                # The tokens of both together may be likelier than those of the candidate alone.
                middle[-1], ended = middle[-1] + max(0.0, ended), min(0.0, ended)
        suffix = next_logprobs[end : end + len(branch.suffix_ids)]
        answers.append(Likelihood(middle=middle, end=ended, suffix=suffix))
    return answers


def _log_sum(one: float, other: float) -> float:
    """Returns the logarithm of the sum of two probabilities, given theirs; at least one is not 0."""
    most = max(one, other)
    return most + math.log1p(math.exp(min(one, other) - most))


@torch.inference_mode()
def masked_likelihoods(
    model: DiffusionModel,
    cache: PromptCache,
    branches: Sequence[Branch],
    *,
    noise: Noise,
    banned_ids: Sequence[int],
    cancel: Cancel,
) -> Pieces[list[Likelihood]]:
    """Judges branches of one prompt by a canvas mode that was trained on masks at any place; each branch is a piece.

    Such a model gives the probability of tokens in any order, so also from left to right. A canvas shows the tokens
    before a block, and masks from there on; all canvases are equally long, so that none tells where its middle ends,
    and the likelihoods of middles of different lengths can be compared.

    Args:
        model: its canvas mode is called once a branch.
        cache: the prompt; only read.
        branches: candidates, at least one, the best first.
        noise: an absorbing mask, which hides a token.
        banned_ids: tokens that get no probability.
        cancel: asked before each branch but the first; of what is cancelled nothing is returned.

    Returns:
        Those of the leading branches that there was time for, none of an end.
    """
    num_past, device = cache.length, model.device
    generator, barred_ids = torch.Generator(device), [*banned_ids, *noise.suppressed_ids]
    place_L = torch.arange(max(len(one.middle_ids) + len(one.suffix_ids) for one in branches), device=device)
    judged: list[Likelihood] = []
    for branch in branches:
        if judged:
            yield
        if cancel.cancelled:
            return []
        if judged and cancel.finish is not None:
            break
        ids_N, length = torch.tensor([*branch.middle_ids, *branch.suffix_ids], device=device), len(place_L)
        place_N = place_L[: len(ids_N)]
        start_K1 = torch.arange(0, len(ids_N), _BLOCK_TOKENS, device=device)[:, None]
        canvas_KL = noise.draw(len(start_K1), length, generator)
        canvas_KL[:, place_N] = torch.where(place_N < start_K1, ids_N, canvas_KL[:, place_N])
        row_KL = (start_K1 // _BLOCK_TOKENS).expand(-1, length).flatten()
        hidden_1TD = model.decode(
            canvas_KL.flatten()[None],
            cache,
            positions_BL=(num_past + place_L).repeat(len(start_K1))[None],
            attention_masks=masks.packed(row_KL, num_past=num_past, sliding_window=model.config.sliding_window),
        )
        logits_NV = model.logits(hidden_1TD[:, place_N // _BLOCK_TOKENS * length + place_N])[0]
        logits_NV[:, barred_ids] = -torch.inf
        logprobs_N = logits_NV.gather(-1, ids_N[:, None])[:, 0] - logits_NV.logsumexp(-1)
        logprobs, num_middle = logprobs_N.tolist(), len(branch.middle_ids)
        judged.append(Likelihood(middle=logprobs[:num_middle], end=None, suffix=logprobs[num_middle:]))
    return judged
