"""From hidden states to what the model believes of each position: the vocabulary's side of a denoising step.

The steps of one run share its memory, and a processor takes a few positions at a time, so that all passes but the first
find the logits in its cache: with a vocabulary of 8,192 these passes cost as much as two layers otherwise.

Shape legend: N judged positions, P positions taken at a time, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dgemma_engine.diffusion.sampler import Belief, judge
from dgemma_engine.model.diffusion_model import DiffusionModel

# A logit whose probability is exactly 0 in float32 and whose entropy term is 0 instead of NaN.
IMPOSSIBLE = -1e9
# Logits at a time: 256 kB of float32, an eighth of a usual second-level cache.
_CACHED_LOGITS = 2**16


class Believing:
    """The beliefs of one run, one after the other.

    Args:
        model: whose vocabulary it is.
        banned_ids: token ids that may not appear at any position, int64 [any]; may be empty.
    """

    def __init__(self, model: DiffusionModel, *, banned_ids: Tensor) -> None:
        self._model = model
        self._banned_ids = banned_ids
        self._memory_2NV = torch.empty(2, 0, model.config.vocab_size, device=model.device)

    def __call__(
        self,
        hidden_ND: Tensor,
        temperature: float,
        barred: Sequence[tuple[int, Tensor]] = (),
        *,
        num_read: int | None = None,
    ) -> Belief:
        """Returns what the model believes; valid until the next call.

        Args:
            hidden_ND: normalised hidden states.
            temperature: > 0.
            barred: positions with the tokens that may not appear there, bool [V].
            num_read: positions whose best token and entropy are wanted, the first ones; all by default.
        """
        raw_NV = self._model.raw_logits(hidden_ND)
        num_positions, vocab_size = raw_NV.shape
        num_read = num_positions if num_read is None else num_read
        if num_positions > self._memory_2NV.shape[1]:
            self._memory_2NV = raw_NV.new_empty(2, num_positions, vocab_size, dtype=torch.float32)
        scaled_NV, probs_NV = self._memory_2NV[:, :num_positions]
        best_N = torch.empty(num_read, dtype=torch.int64, device=raw_NV.device)
        entropy_N = scaled_NV.new_empty(num_read)
        at_once = max(1, _CACHED_LOGITS // vocab_size) if raw_NV.device.type == "cpu" else max(1, num_positions)
        cap = self._model.config.final_logit_softcapping
        for first in range(0, num_positions, at_once):
            part = slice(first, first + at_once)
            scaled_PV = scaled_NV[part].copy_(raw_NV[part])
            if cap is None:
                scaled_PV.div_(temperature)
            else:
                # The softcap, and the division by the temperature with its last factor.
                scaled_PV.mul_(1 / cap).tanh_().mul_(cap / temperature)
            scaled_PV.index_fill_(-1, self._banned_ids, IMPOSSIBLE)
            for position, barred_V in barred:
                if first <= position < first + at_once:
                    scaled_PV[position - first].masked_fill_(barred_V, IMPOSSIBLE)
            torch.softmax(scaled_PV, dim=-1, out=probs_NV[part])
            read = slice(first, min(first + at_once, num_read))
            if read.start < read.stop:
                best_N[read], entropy_N[read] = judge(scaled_NV[read], probs_NV[read])
        return Belief(scaled_NV=scaled_NV, probs_NV=probs_NV, best_N=best_N, entropy_N=entropy_N)
