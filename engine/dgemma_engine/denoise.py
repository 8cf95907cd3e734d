"""The denoising loop: wires the model to the policies and does no maths of its own.

Shape legend: B rows, L canvas positions, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_engine.cache import KVCache
from dgemma_engine.cancel import Cancel
from dgemma_engine.canvas import Canvas
from dgemma_engine.messages import Finish
from dgemma_engine.model import DiffusionGemma
from dgemma_engine.policies import Sampler, believe, sample

# A logit whose probability is exactly 0 in float32 and whose entropy term is 0 instead of NaN.
_IMPOSSIBLE = -1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoised:
    """Where a run ended.

    Attributes:
        finish: STABLE, STEP_LIMIT, DEADLINE or CANCELLED.
        best_BL: best guess of the last step; None when no step was made.
        confidence_BL: probability of each best token at temperature 1, float32; None when no step was made.
        steps: denoising steps made.
    """

    finish: Finish
    best_BL: Tensor | None
    confidence_BL: Tensor | None
    steps: int


@torch.inference_mode()
def denoise(
    model: DiffusionGemma,
    cache: KVCache,
    canvas: Canvas,
    sampler: Sampler,
    *,
    banned_ids: Tensor,
    generator: torch.Generator,
    cancel: Cancel,
    on_step: Callable[[], None],
) -> Denoised:
    """Denoises a canvas over the prompt in the cache.

    Every position is judged anew at every step; what is not accepted is replaced by noise, and clamped positions are
    rewritten after that. The answer is the best guess of the last step, not the sampled canvas.

    Args:
        model: its canvas mode is called once a step.
        cache: the prompt; only read.
        canvas: changed in place.
        sampler: the decisions.
        banned_ids: token ids that may not appear at any position, int64 [any]; may be empty.
        generator: every random draw comes from it, in the order of `transformers`' generate.
        cancel: asked before every step.
        on_step: called after every step.
    """
    earlier: deque[Tensor] = deque(maxlen=max(1, sampler.stop.stability))
    soft_BLD: Tensor | None = None
    best_BL: Tensor | None = None
    logits_BLV: Tensor | None = None
    steps = 0
    temperature = 1.0
    finish = Finish.STEP_LIMIT
    for remaining in range(sampler.num_steps, 0, -1):
        if cancel.cancelled or cancel.expired:
            finish = Finish.CANCELLED if cancel.cancelled else Finish.DEADLINE
            break
        logits_BLV = model.logits(model.decode(canvas.ids_BL, cache, soft_BLD=soft_BLD))
        logits_BLV.index_fill_(-1, banned_ids, _IMPOSSIBLE)
        temperature = sampler.schedule.temperature(remaining, sampler.num_steps)
        belief = believe(logits_BLV, temperature)
        best_BL = belief.best_BL
        steps += 1
        on_step()
        if bool(sampler.stop.finished(earlier, best_BL, belief.entropy_BL, canvas.free_BL).all()):
            finish = Finish.STABLE
            break
        if remaining == 1:
            break
        sampled_BL = sample(belief.probs_BLV, generator)
        accepted_BL = sampler.acceptance.accept(belief.entropy_BL, canvas.free_BL)
        noise_BL = sampler.noise.draw(sampled_BL.shape[0], sampled_BL.shape[1], generator)
        canvas.replace(torch.where(accepted_BL, sampled_BL, noise_BL))
        earlier.append(best_BL)
        soft_BLD = model.soft_embeddings(belief.probs_BLV)
    confidence_BL = None if logits_BLV is None else torch.softmax(logits_BLV * temperature, dim=-1).amax(-1)
    return Denoised(finish=finish, best_BL=best_BL, confidence_BL=confidence_BL, steps=steps)
