"""Keeps the experts of a mixture in use: operations for training that also measure how even the routing is.

The auxiliary loss is that of Switch Transformers (arXiv 2101.03961, eq. 4): experts x sum over experts of the share of
tokens sent there times the mean router probability; 1 when even. Shape legend: N tokens, E experts, K chosen, D hidden,
I intermediate.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from dgemma_kernels import reference
from torch import Tensor

from dgemma_engine.ops import Ops


class RoutingBalance:
    """Collects one term per routed layer and pass."""

    def __init__(self) -> None:
        self._terms: list[Tensor] = []

    def ops(self) -> Ops:
        """Returns the reference operations, with a `route` that reports here and experts run densely."""
        return replace(Ops.reference(), route=self._route, experts=reference.experts_densely)

    def take(self) -> Tensor:
        """Returns the mean of the terms since the last call, a scalar that carries gradients, and forgets them."""
        assert self._terms, "no layer was routed"
        mean = torch.stack(self._terms).mean()
        self._terms.clear()
        return mean

    def _route(self, scores_NE: Tensor, per_expert_scale_E: Tensor, num_selected: int) -> tuple[Tensor, Tensor]:
        weights_NK, indices_NK = reference.route(scores_NE, per_expert_scale_E, num_selected)
        if torch.is_grad_enabled():
            num_experts = scores_NE.shape[-1]
            sent_E = torch.bincount(indices_NK.flatten(), minlength=num_experts) / indices_NK.numel()
            believed_E = torch.softmax(scores_NE, dim=-1, dtype=torch.float32).mean(0)
            self._terms.append(num_experts * (sent_E * believed_E).sum())
        return weights_NK, indices_NK
