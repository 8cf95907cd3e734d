"""Every operation in plain PyTorch: the reference of the kernel of the same name, and what runs on a processor.

Shape legend: B rows, T tokens of a row, L query positions, S key positions, D hidden, I intermediate, H query heads,
G key-value heads, d head size, N tokens over all rows, E experts, K experts per token, V vocabulary.

Formulas follow `transformers/models/diffusion_gemma/modeling_diffusion_gemma.py` (5.23.0).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x_ND: Tensor, weight_D: Tensor | None, eps: float) -> Tensor:
    """Root-mean-square norm over the last dimension, computed in float32, returned in `x`'s dtype.

    Args:
        x_ND: any shape ending in D.
        weight_D: scale, or None for a norm without one.
        eps: added to the mean square.
    """
    return torch.rms_norm(x_ND, (x_ND.shape[-1],), weight_D, eps)


def apply_rotary(x_BTHd: Tensor, cos_BTd: Tensor, sin_BTd: Tensor) -> Tensor:
    """Rotary position embedding in the half-split layout; dimensions whose angle is 0 pass through.

    Args:
        x_BTHd: queries or keys.
        cos_BTd: cosines, both halves equal, broadcast over B.
        sin_BTd: sines, likewise.
    """
    x1, x2 = x_BTHd.chunk(2, dim=-1)
    return x_BTHd * cos_BTd[..., None, :] + torch.cat((-x2, x1), dim=-1) * sin_BTd[..., None, :]


def attention(q_BHLd: Tensor, k_BGSd: Tensor, v_BGSd: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention with scale 1.0 and grouped key-value heads.

    Args:
        q_BHLd: queries.
        k_BGSd: keys; H is a multiple of G.
        v_BGSd: values.
        mask: bool, broadcastable to [B, H, L, S], True where a query sees a key; None sees all.

    Returns:
        [B, H, L, d], in `q`'s dtype.
    """
    return F.scaled_dot_product_attention(q_BHLd, k_BGSd, v_BGSd, attn_mask=mask, scale=1.0, enable_gqa=True)


def gated_gelu(gate_up_N2I: Tensor) -> Tensor:
    """`gelu_tanh(gate) * up` of the two halves of the last dimension; returns [N, I]."""
    gate, up = gate_up_N2I.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * up


def route(scores_NE: Tensor, per_expert_scale_E: Tensor, num_selected: int) -> tuple[Tensor, Tensor]:
    """Chooses experts: softmax in float32, top-k, renormalised, then scaled per expert.

    Args:
        scores_NE: router outputs.
        per_expert_scale_E: factor on the weight of each expert.
        num_selected: K.

    Returns:
        weights_NK (float32 or the scale's dtype, whichever is wider) and indices_NK (int64).
    """
    probs_NE = torch.softmax(scores_NE, dim=-1, dtype=torch.float32)
    weights_NK, indices_NK = torch.topk(probs_NE, num_selected, dim=-1)
    weights_NK = weights_NK / weights_NK.sum(dim=-1, keepdim=True)
    return weights_NK * per_expert_scale_E[indices_NK], indices_NK


def experts(x_ND: Tensor, weights_NK: Tensor, indices_NK: Tensor, gate_up_E2ID: Tensor, down_EDI: Tensor) -> Tensor:
    """Mixture of experts: the weighted sum of the chosen experts' gated MLPs.

    Grouped by expert, which does no extra work; densely where there are few experts and bfloat16 makes the extra work
    cheaper than the grouping (engine/bench/results/step.json).

    Args:
        x_ND: inputs.
        weights_NK: routing weights.
        indices_NK: chosen experts.
        gate_up_E2ID: gate and up projections, gate first.
        down_EDI: down projections.

    Returns:
        [N, D] in `x`'s dtype.
    """
    if x_ND.dtype is torch.bfloat16 and gate_up_E2ID.shape[0] <= 4 * indices_NK.shape[1]:
        return experts_densely(x_ND, weights_NK, indices_NK, gate_up_E2ID, down_EDI)
    return experts_by_group(x_ND, weights_NK, indices_NK, gate_up_E2ID, down_EDI)


def experts_by_group(
    x_ND: Tensor, weights_NK: Tensor, indices_NK: Tensor, gate_up_E2ID: Tensor, down_EDI: Tensor
) -> Tensor:
    """The same sum as `experts`, with tokens sorted by expert and one product for each expert that got any."""
    products = ([partial(F.linear, weight=weight) for weight in weights] for weights in (gate_up_E2ID, down_EDI))
    return experts_by_product(x_ND, weights_NK, indices_NK, *products)


def experts_by_product(
    x_ND: Tensor,
    weights_NK: Tensor,
    indices_NK: Tensor,
    gate_up: Sequence[Callable[[Tensor], Tensor]],
    down: Sequence[Callable[[Tensor], Tensor]],
) -> Tensor:
    """The same sum as `experts_by_group` for weights that are stored in any way.

    Args:
        x_ND: inputs.
        weights_NK: routing weights.
        indices_NK: chosen experts.
        gate_up: of each expert, `x @ weight.T` with its gate and up projections, gate first.
        down: of each expert, the same with its down projection.

    Returns:
        [N, D] in `x`'s dtype.
    """
    num_selected = indices_NK.shape[1]
    order = torch.argsort(indices_NK.reshape(-1), stable=True)
    token_of = order // num_selected
    counts: list[int] = torch.bincount(indices_NK.reshape(-1), minlength=len(gate_up)).tolist()
    inner = gated_gelu(_product_per_expert(x_ND[token_of], gate_up, counts))
    weighted = _product_per_expert(inner, down, counts) * weights_NK.reshape(-1)[order, None]
    return torch.zeros_like(x_ND).index_add_(0, token_of, weighted.to(x_ND.dtype))


def experts_densely(
    x_ND: Tensor, weights_NK: Tensor, indices_NK: Tensor, gate_up_E2ID: Tensor, down_EDI: Tensor
) -> Tensor:
    """The same sum as `experts`, with every expert run on every token and the ones not chosen weighted 0.

    Two large products instead of many small ones: no loop and no count, so it can be compiled and has cheap gradients.
    An expert may be chosen once per token.
    """
    num_experts, _, hidden_size = gate_up_E2ID.shape
    zeros_NE = torch.zeros(x_ND.shape[0], num_experts, dtype=weights_NK.dtype, device=x_ND.device)
    weights_NE = zeros_NE.scatter(1, indices_NK, weights_NK)
    gate_up = F.linear(x_ND, gate_up_E2ID.reshape(-1, hidden_size)).unflatten(-1, (num_experts, -1))
    inner = gated_gelu(gate_up)
    weighted = inner * weights_NE[..., None].to(inner.dtype)
    return F.linear(weighted.flatten(1), down_EDI.transpose(0, 1).reshape(hidden_size, -1)).to(x_ND.dtype)


def _product_per_expert(x_MD: Tensor, products: Sequence[Callable[[Tensor], Tensor]], counts: list[int]) -> Tensor:
    """Multiplies consecutive groups of rows with one matrix each; experts without rows cost nothing."""
    groups = zip(x_MD.split(counts), products, strict=True)
    return torch.cat([product(rows) for rows, product in groups if len(rows)])


def softcap(logits_NV: Tensor, cap: float) -> Tensor:
    """`cap * tanh(logits / cap)` in float32."""
    capped_NV = torch.div(logits_NV.float(), cap).tanh_()
    return capped_NV * cap if capped_NV.requires_grad else capped_NV.mul_(cap)
