"""Keeps the experts of a mixture in use: operations for training that also measure how even the routing is.

The auxiliary loss is that of Switch Transformers (arXiv 2101.03961, eq. 4): experts x sum over experts of the share of
tokens sent there times the mean router probability; 1 when even. Shape legend: N tokens, E experts, K chosen, D hidden,
I intermediate.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from dgemma_kernels import reference
from torch import Tensor

from dgemma_engine.model.ops import Ops
from dgemma_engine.tools.training.optimization.grouped_experts import experts_grouped


class RoutingBalance:
    """Adds up one term per routed layer and pass.

    Sum and count live in one tensor that is an attribute: a compiled layer may replace an attribute, while a growing
    list would have it compiled again for every length.

    Args:
        device: where the model is.
    """

    def __init__(self, device: torch.device) -> None:
        self._none_yet_2 = torch.zeros(2, device=device)
        self._sum_and_count_2 = self._none_yet_2

    def ops(self) -> Ops:
        """Returns the reference operations, with a `route` that reports here, and the device's fastest experts."""
        is_gpu = self._none_yet_2.device.type == "cuda"
        experts = experts_grouped if is_gpu else reference.plain.experts_densely
        return replace(Ops.reference(), route=self._route, experts=experts)

    def take(self) -> Tensor:
        """Returns the mean of the terms since the last call, a scalar that carries gradients, and drops them."""
        total, count = self._sum_and_count_2.unbind()
        assert self._sum_and_count_2 is not self._none_yet_2, "no layer was routed"
        self._sum_and_count_2 = self._none_yet_2
        return total / count

    def _route(self, scores_NE: Tensor, per_expert_scale_E: Tensor, num_selected: int) -> tuple[Tensor, Tensor]:
        weights_NK, indices_NK = reference.plain.route(scores_NE, per_expert_scale_E, num_selected)
        if torch.is_grad_enabled():
            num_experts = scores_NE.shape[-1]
            sent_E = F.one_hot(indices_NK.flatten(), num_experts).float().mean(0)
            probability_E = torch.softmax(scores_NE, dim=-1, dtype=torch.float32).mean(0)
            term = num_experts * (sent_E * probability_E).sum()
            self._sum_and_count_2 = self._sum_and_count_2 + torch.stack((term, torch.ones_like(term)))
        return weights_NK, indices_NK
