"""Token distributions from hidden states: softcap, temperature, suppressed tokens, best token, entropy, a draw.

The steps of one run share memory, and a processor takes a few positions at a time, so that all passes but the first
find the logits in its cache: with a vocabulary of 8,192 these passes cost as much as two layers otherwise.

Shape legend: N scored positions, P positions taken at a time, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dgemma_engine.model.diffusion_model import DiffusionModel

# A logit whose probability is exactly 0 in float32 and whose entropy term is 0 instead of NaN.
IMPOSSIBLE = -1e9
# Logits at a time: 256 KiB of float32, an eighth of a usual second-level cache.
_CACHED_LOGITS = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDistribution:
    """Distributions of the scored positions at one temperature.

    Attributes:
        scaled_NV: logits divided by the temperature, float32.
        probs_NV: probabilities, float32.
        best_N: likeliest token; perhaps of the first positions only.
        entropy_N: nats; of the same positions.
    """

    scaled_NV: Tensor
    probs_NV: Tensor
    best_N: Tensor
    entropy_N: Tensor


@dataclass(slots=True, eq=False)
class VocabularyScorer:
    """Computes the distributions of one run's steps, one step after the other.

    Attributes:
        model: its output matrix and softcap.
        suppressed_ids: token ids that may not appear at any position, int64 [any]; may be empty.
    """

    model: DiffusionModel
    suppressed_ids: Tensor
    _memory_2NV: Tensor | None = field(default=None, init=False)

    def score(
        self,
        hidden_ND: Tensor,
        temperature: float,
        suppressed: Sequence[tuple[int, Tensor]] = (),
        *,
        num_read: int | None = None,
    ) -> TokenDistribution:
        """Returns the distributions; valid until the next call.

        Args:
            hidden_ND: normalised hidden states.
            temperature: > 0.
            suppressed: positions with the tokens that may not appear there, bool [V].
            num_read: leading positions whose best token and entropy are computed; all by default.
        """
        raw_NV = self.model.raw_logits(hidden_ND)
        num_positions, vocab_size = raw_NV.shape
        num_read = num_positions if num_read is None else num_read
        if self._memory_2NV is None or num_positions > self._memory_2NV.shape[1]:
            self._memory_2NV = raw_NV.new_empty(2, num_positions, vocab_size, dtype=torch.float32)
        scaled_NV, probs_NV = self._memory_2NV[:, :num_positions]
        best_N = torch.empty(num_read, dtype=torch.int64, device=raw_NV.device)
        entropy_N = scaled_NV.new_empty(num_read)
        at_once = max(1, _CACHED_LOGITS // vocab_size) if raw_NV.device.type == "cpu" else max(1, num_positions)
        cap = self.model.config.final_logit_softcapping
        for first in range(0, num_positions, at_once):
            part = slice(first, first + at_once)
            scaled_PV = scaled_NV[part].copy_(raw_NV[part])
            if cap is None:
                scaled_PV.div_(temperature)
            else:
                # The softcap, and the division by the temperature with its last factor.
                scaled_PV.mul_(1 / cap).tanh_().mul_(cap / temperature)
            scaled_PV.index_fill_(-1, self.suppressed_ids, IMPOSSIBLE)
            for position, suppressed_V in suppressed:
                if first <= position < first + at_once:
                    scaled_PV[position - first].masked_fill_(suppressed_V, IMPOSSIBLE)
            torch.softmax(scaled_PV, dim=-1, out=probs_NV[part])
            read = slice(first, min(first + at_once, num_read))
            if read.start < read.stop:
                # Entropy log Z - sum(p * s) of scaled logits s; log Z follows from the best token's probability.
                scaled_PV, probs_PV = scaled_NV[read], probs_NV[read]
                highest_P, best_P = scaled_PV.max(-1)
                log_norm_P = highest_P - probs_PV.gather(-1, best_P[:, None]).squeeze(-1).log()
                best_N[read] = best_P
                entropy_N[read] = (log_norm_P - (probs_PV * scaled_PV).sum(-1)).clamp_(min=0.0)
        return TokenDistribution(scaled_NV=scaled_NV, probs_NV=probs_NV, best_N=best_N, entropy_N=entropy_N)


def sample(probs_NV: Tensor, levels_N1: Tensor) -> Tensor:
    """Draws one token id per position by inverting its distribution function at one uniform number.

    The same distribution as `torch.multinomial` from one draw a position instead of one a vocabulary entry, many times
    faster (`draw_ms` in engine/bench/results/step.json). A token of probability 0 is never drawn.

    Args:
        probs_NV: distributions; need not be normalised.
        levels_N1: uniform numbers, 0 up to but not including 1.

    Returns:
        [N], int64.
    """
    cumulative_NV = probs_NV.cumsum(-1)
    passed_N1 = torch.searchsorted(cumulative_NV, levels_N1 * cumulative_NV[:, -1:], right=True)
    return passed_N1.squeeze(-1).clamp_(max=probs_NV.shape[-1] - 1)


def confidence(scaled_NV: Tensor, temperature: float, ids_N: Tensor) -> Tensor:
    """Returns the probability of a token of each position at temperature 1, [N], float32.

    Args:
        scaled_NV: logits divided by `temperature`.
        temperature: > 0.
        ids_N: the tokens, int64.
    """
    below_best_NV = (scaled_NV - scaled_NV.amax(-1, keepdim=True)).mul_(temperature).exp_()
    return below_best_NV.gather(-1, ids_N[:, None]).squeeze(-1).div_(below_best_NV.sum(-1))
