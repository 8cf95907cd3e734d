"""What a training step does over the whole vocabulary, a few rows at a time: cross-entropy and distributions.

Logits of all rows at once would be the largest tensors of a step by far; of a few rows they stay in the processor's
cache, and the gradients of a weighted cross-entropy are known as soon as its logits are. Takes hidden states and
targets; knows nothing of slots or prompts. Shape legend: N rows, C rows of a chunk, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from dgemma_engine.model.transformer import DiffusionGemma

# Logits of a chunk: those of a CPU stay in a core's second-level cache, those of a GPU fill its cores.
_CHUNK_LOGITS = {"cpu": 1 << 20, "cuda": 1 << 27}

Judge: TypeAlias = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


def judge(logits_CV: Tensor, targets_C: Tensor, weights_C: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """Returns the weighted cross-entropy of softcapped logits, a scalar, and its gradient by the logits, [C, V].

    Args:
        logits_CV: before the softcap, any floating dtype.
        targets_C: the right tokens.
        weights_C: of each row, float32.
        cap: of the softcap.
    """
    share_CV = torch.tanh(logits_CV.float() / cap)
    capped_CV = share_CV * cap
    log_norm_C1 = capped_CV.logsumexp(-1, keepdim=True)
    losses_C1 = log_norm_C1 - capped_CV.gather(-1, targets_C[:, None])
    probs_CV = torch.exp(capped_CV - log_norm_C1)
    is_target_CV = torch.arange(logits_CV.shape[-1], device=logits_CV.device) == targets_C[:, None]
    errors_CV = (probs_CV - is_target_CV.float()) * weights_C[:, None]
    return (losses_C1[:, 0] * weights_C).sum(), (errors_CV * (1 - share_CV * share_CV)).to(logits_CV.dtype)


def distribution(logits_CV: Tensor, temperature: Tensor, cap: float) -> Tensor:
    """Returns the distribution of softcapped logits at a temperature, [C, V] in the logits' dtype."""
    capped_CV = torch.tanh(logits_CV.float() / cap) * cap
    return torch.softmax(capped_CV / temperature, dim=-1).to(logits_CV.dtype)


class Vocabulary:
    """The two vocabulary operations of a training step.

    Args:
        judge: `judge`, or a compiled version of it.
        distribution: `distribution`, or a compiled version of it.
    """

    def __init__(self, judge: Judge, distribution: Callable[[Tensor, Tensor, float], Tensor]) -> None:
        self._judge, self._distribution = judge, distribution

    @classmethod
    def eager(cls) -> Self:
        """Plain PyTorch."""
        return cls(judge, distribution)

    @classmethod
    def compiled(cls) -> Self:
        """Each chunk's element-wise work in a few passes; needs a C++ compiler on a CPU."""
        return cls(torch.compile(judge, dynamic=True), torch.compile(distribution, dynamic=True))

    def loss(self, model: DiffusionGemma, hidden_ND: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:
        """Returns the sum of weighted cross-entropies in nats, a scalar that carries gradients.

        Args:
            model: its embedding and softcap.
            hidden_ND: normalised hidden states.
            targets_N: the right tokens.
            weights_N: of each row, float32; to get a mean, they sum to 1.
        """
        cap = model.config.final_logit_softcapping
        loss: Tensor = _ChunkedCrossEntropy.apply(  # pyright: ignore[reportAssignmentType]
            hidden_ND, model.embed_tokens.weight, targets_N, weights_N, cap, self._judge, torch.is_grad_enabled()
        )
        return loss

    @torch.no_grad()
    def soft_embeddings(self, model: DiffusionGemma, hidden_ND: Tensor, temperature: Tensor) -> Tensor:
        """Returns the expected embedding under each row's distribution, [N, D], as a denoising step hands it on."""
        dtype = _product_dtype(hidden_ND)
        weight_VD = model.embed_tokens.weight.to(dtype)
        chunks = hidden_ND.to(dtype).split(_chunk_rows(weight_VD))
        cap = model.config.final_logit_softcapping
        probs_by_chunk = [self._distribution(F.linear(rows_CD, weight_VD), temperature, cap) for rows_CD in chunks]
        return torch.cat([probs_CV @ weight_VD for probs_CV in probs_by_chunk]) * model.config.hidden_size**0.5


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Computes both gradients with the loss, so that no logits are kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        weights_N: Tensor,
        cap: float,
        judge: Judge,
        needs_gradients: bool,
    ) -> Tensor:
        dtype, rows = _product_dtype(hidden_ND), _chunk_rows(weight_VD)
        table_VD = weight_VD.to(dtype)
        loss = weights_N.new_zeros(())
        grad_hidden_ND = torch.empty_like(hidden_ND, dtype=dtype)
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            for start in range(0, hidden_ND.shape[0], rows):
                chunk = slice(start, start + rows)
                rows_CD = hidden_ND[chunk].to(dtype)
                logits_CV = F.linear(rows_CD, table_VD)
                part, errors_CV = judge(logits_CV, targets_N[chunk], weights_N[chunk], cap)
                loss += part
                if needs_gradients:
                    grad_hidden_ND[chunk] = errors_CV @ table_VD
                    grad_weight_VD += errors_CV.mT @ rows_CD
        ctx.save_for_backward(grad_hidden_ND, grad_weight_VD)
        ctx.dtypes = hidden_ND.dtype, weight_VD.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        grad_hidden_ND, grad_weight_VD = ctx.saved_tensors
        hidden_dtype, weight_dtype = ctx.dtypes
        return (grad_hidden_ND * grad).to(hidden_dtype), (grad_weight_VD * grad).to(weight_dtype), *[None] * 5


def _product_dtype(hidden_ND: Tensor) -> torch.dtype:
    """What autocast multiplies in, or the hidden states' own dtype without it."""
    device = hidden_ND.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ND.dtype


def _chunk_rows(weight_VD: Tensor) -> int:
    return max(1, _CHUNK_LOGITS[weight_VD.device.type] // weight_VD.shape[0])
