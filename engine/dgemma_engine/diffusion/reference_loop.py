"""The reference of the denoising loop: written out plainly, without policies or clamps in tensors.

`denoiser.py` must give the same tokens and the same number of steps from the same random draws. One
row, float32, one Python loop per rule; for tests, never for serving.

Shape legend: L canvas positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dgemma_engine.diffusion.sampler import EntropyBound, Sampler, StableAndConfident
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import KVCache


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainResult:
    """Best guess of every position after the last step, and the steps made."""

    ids: list[int]
    steps: int


@torch.inference_mode()
def denoise_plainly(
    model: DiffusionModel,
    cache: KVCache,
    slot_size: int,
    suffix_head_ids: list[int],
    sampler: Sampler,
    *,
    banned_ids: list[int],
    generator: torch.Generator,
) -> PlainResult:
    """Fills `slot_size` free positions before the clamped suffix head.

    Args:
        model: in float32.
        cache: the prompt.
        slot_size: free positions.
        suffix_head_ids: clamped tokens after them.
        sampler: read for its numbers only, those of an entropy bound and of `StableAndConfident`.
        banned_ids: tokens that may not appear.
        generator: drawn from in the order of `denoiser.denoise`.
    """
    acceptance, stop = sampler.acceptance, sampler.stop
    assert isinstance(acceptance, EntropyBound) and isinstance(stop, StableAndConfident)
    length, vocab_size = slot_size + len(suffix_head_ids), model.config.vocab_size
    noise = torch.randint(0, vocab_size, (1, length), generator=generator)[0].tolist()
    canvas: list[int] = noise[:slot_size] + suffix_head_ids
    history: list[list[int]] = []
    probs_LV = None
    for step in range(1, sampler.num_steps + 1):
        soft = None if probs_LV is None else model.soft_embeddings(probs_LV[None])
        logits_LV = model.logits(model.decode(torch.tensor([canvas]), cache, soft_BLD=soft))[0]
        for token_id in banned_ids:
            logits_LV[:, token_id] = -1e9
        remaining_share = (sampler.num_steps - step + 1) / sampler.num_steps
        span = sampler.schedule.t_max - sampler.schedule.t_min
        logits_LV = logits_LV / (sampler.schedule.t_min + span * remaining_share)
        probs_LV = torch.softmax(logits_LV, dim=-1)
        best: list[int] = logits_LV.argmax(-1).tolist()
        entropy = [float(torch.special.entr(row).sum()) for row in probs_LV]
        free = range(slot_size)
        recent = history[len(history) - stop.num_earlier :] if stop.num_earlier else []
        stable = len(recent) == stop.num_earlier and all(old[i] == best[i] for old in recent for i in free)
        history.append(best)
        if stable and sum(entropy[i] for i in free) / slot_size < stop.confidence:
            break
        levels: list[float] = torch.rand(length, generator=generator).tolist()
        sampled = [_token_at(row, level) for row, level in zip(probs_LV, levels, strict=True)]
        noise = torch.randint(0, vocab_size, (1, length), generator=generator)[0].tolist()
        spent = 0.0
        accepted: set[int] = set()
        for position in sorted(free, key=lambda i: entropy[i]):
            if spent > acceptance.bound:
                break
            accepted.add(position)
            spent += entropy[position]
        canvas = [sampled[i] if i in accepted else noise[i] for i in free] + suffix_head_ids
    return PlainResult(ids=history[-1], steps=len(history))


def _token_at(probs_V: torch.Tensor, level: float) -> int:
    """Returns the first token at which the running sum of probabilities passes `level` of the total."""
    cumulative = probs_V.cumsum(-1)
    passed = (cumulative > level * cumulative[-1]).nonzero()
    return int(passed[0]) if len(passed) else len(probs_V) - 1
