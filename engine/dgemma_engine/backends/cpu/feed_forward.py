"""A layer after its attention, on a processor: output projection, MLP, experts, and the norms around them.

Modules that TorchScript can compile as a whole (`scripted`). Hidden states between norms are float32.

Shape legend: N tokens, D hidden, O width of all heads, I intermediate, E experts, K experts per token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from dgemma_kernels.packing.cpu import PackedGate, PackedMatrix
from torch import Tensor, nn

from dgemma_engine.model.config import ModelConfig
from dgemma_engine.model.layers import Experts, GatedMLP, Layer

# Up to this many experts per chosen one, bfloat16 runs all of them on all tokens (`kernels.reference.experts`).
_DENSE_EXPERTS_PER_CHOSEN = 4


class FeedForward(nn.Module):
    """All of a layer after its attention.

    Args:
        layer: source of the weights; a module of another class than `model/layers.py` makes is called unchanged.
        config: dimensions.
    """

    def __init__(self, layer: Layer, config: ModelConfig) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.rms_norm_eps
        self._out = product(layer.self_attn.o_proj)
        self._after_attention = RmsNorm(layer.post_attention_layernorm.weight, size, eps)
        self._both = _Together(layer, config) if _runs_together(layer, config) else _Apart(layer, config)
        self._after_dense = RmsNorm(layer.post_feedforward_layernorm_1.weight, size, eps)
        self._after_sparse = RmsNorm(layer.post_feedforward_layernorm_2.weight, size, eps)
        self._after_both = RmsNorm(layer.post_feedforward_layernorm.weight, size, eps)

    def forward(self, x_ND: Tensor, attended_NO: Tensor) -> Tensor:
        """Returns the layer's output before the layer scalar, float32, from its input and the attention's output."""
        residual_ND = self._after_attention.added_to(x_ND, self._out(attended_NO).float())
        # Of the norm before MLP and experts only the division is left; its scales are folded into their weights.
        unit_ND = residual_ND / self._after_attention.length(residual_ND)
        dense_ND, sparse_ND = self._both(unit_ND)
        fed_ND = self._after_sparse.added_to(self._after_dense(dense_ND.float()), sparse_ND.float())
        return self._after_both.added_to(residual_ND, fed_ND)


class PackedMLP(nn.Module):
    """A gated MLP with packed matrices.

    Args:
        module: source of the weights; both of its projections are plain `nn.Linear`.
    """

    def __init__(self, module: GatedMLP) -> None:
        super().__init__()
        gate, up = module.gate_up_proj.weight.chunk(2)
        self._inner, self._down = PackedGate(gate, up), product(module.down_proj)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Returns [N, D] in the weights' dtype, which `x` must have."""
        return self._down(self._inner(x_ND))


class _TopExperts(nn.Module):
    """The router: chooses the experts of each token."""

    def __init__(self, layer: Layer, config: ModelConfig) -> None:
        super().__init__()
        router = layer.router
        # Times sqrt(D), rows of length 1 are normalised ones; the router divides by sqrt(D) again.
        router_ED = router.proj.weight.detach().float() * router.scale.detach().float()
        # Laid out for `mm`: a fifth of the time that `F.linear` takes for so few columns.
        self._weight_DE = router_ED.t().contiguous()
        self._num_chosen = config.top_k_experts

    def forward(self, unit_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the shares (weights) and the indices of each token's experts, [N, K] each."""
        scores_NK, indices_NK = torch.mm(unit_ND, self._weight_DE).topk(self._num_chosen, -1)
        # The softmax over the chosen scores is the softmax over all of them, renormalised.
        return scores_NK.softmax(-1), indices_NK


class _Together(nn.Module):
    """All experts on all tokens, and the dense MLP in the same products: no gathering, and the fewest calls."""

    def __init__(self, layer: Layer, config: ModelConfig) -> None:
        super().__init__()
        mlp, experts = layer.mlp, layer.experts
        dtype = layer.pre_feedforward_layernorm.weight.dtype
        dense_D, sparse_D = _read_scales(layer, config)
        self._num_experts, size, _inner = experts.down_proj.shape
        dense_gate, dense_up = (mlp.gate_up_proj.weight.detach().float() * dense_D).chunk(2)
        sparse_gate, sparse_up = (experts.gate_up_proj.detach().float() * sparse_D).chunk(2, dim=1)
        gate = torch.cat((dense_gate, sparse_gate.flatten(0, 1)))
        up = torch.cat((dense_up, sparse_up.flatten(0, 1)))
        self._router = _TopExperts(layer, config)
        self._per_expert_E = layer.router.per_expert_scale.detach().float()
        self._gate = PackedGate(gate.to(dtype), up.to(dtype))
        self._num_dense = mlp.down_proj.weight.shape[1]
        self._dense_down = PackedMatrix(mlp.down_proj.weight)
        self._sparse_down = PackedMatrix(experts.down_proj.transpose(0, 1).reshape(size, -1))

    def forward(self, unit_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the outputs of the MLP and of the experts for rows of length 1, [N, D] each."""
        shares_NK, indices_NK = self._router(unit_ND)
        inner_NI = self._gate(unit_ND.to(torch.bfloat16))
        shares_NE = torch.zeros([unit_ND.size(0), self._num_experts]).scatter_(1, indices_NK, shares_NK)
        shares_NE = shares_NE.mul_(self._per_expert_E).to(torch.bfloat16)
        sparse_NEI = inner_NI[:, self._num_dense :].unflatten(-1, [self._num_experts, -1]) * shares_NE.unsqueeze(-1)
        return self._dense_down(inner_NI[:, : self._num_dense]), self._sparse_down(sparse_NEI.flatten(1))


class _Groups(nn.Module):
    """Experts on the tokens that chose them: `dgemma_kernels.reference.plain.experts_by_group` in TorchScript's Python.

    Args:
        experts: the experts; their weights are shared, not copied.
    """

    def __init__(self, experts: Experts) -> None:
        super().__init__()
        self._gate_up_E2ID, self._down_EDI = experts.gate_up_proj.detach(), experts.down_proj.detach()
        self._num_experts = len(self._down_EDI)

    def forward(self, x_ND: Tensor, shares_NK: Tensor, indices_NK: Tensor) -> Tensor:
        """Returns the weighted sum of the chosen experts, [N, D] in `x`'s dtype."""
        chosen_M = indices_NK.flatten()
        order_M = torch.argsort(chosen_M, stable=True)
        token_M = torch.div(order_M, indices_NK.size(1), rounding_mode="floor")
        counts: list[int] = torch.bincount(chosen_M, minlength=self._num_experts).tolist()
        rows = x_ND.index_select(0, token_M).split(counts)
        fed: list[Tensor] = []
        for expert_idx, rows_ND in enumerate(rows):
            if rows_ND.size(0) > 0:
                gate_NI, up_NI = F.linear(rows_ND, self._gate_up_E2ID[expert_idx]).chunk(2, -1)
                inner_NI = F.gelu(gate_NI, approximate="tanh") * up_NI
                fed.append(F.linear(inner_NI, self._down_EDI[expert_idx]))
        weighted_MD = torch.cat(fed) * shares_NK.flatten().index_select(0, order_M).unsqueeze(-1)
        return torch.zeros_like(x_ND).index_add_(0, token_M, weighted_MD.to(x_ND.dtype))


class _Apart(nn.Module):
    """The dense MLP, and the experts: by group, or by a replaced module."""

    def __init__(self, layer: Layer, config: ModelConfig) -> None:
        super().__init__()
        self._dtype = layer.pre_feedforward_layernorm.weight.dtype
        self._dense_scale_D, self._sparse_scale_D = _read_scales(layer, config)
        self._router = _TopExperts(layer, config)
        self._per_expert_E = layer.router.per_expert_scale.detach().float()
        self._mlp = mlp(layer.mlp)
        self._experts = _Groups(layer.experts) if type(layer.experts) is Experts else layer.experts

    def forward(self, unit_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the outputs of the MLP and of the experts for rows of length 1, [N, D] each."""
        shares_NK, indices_NK = self._router(unit_ND)
        shares_NK = shares_NK.mul_(self._per_expert_E[indices_NK])
        dense_ND = self._mlp((unit_ND * self._dense_scale_D).to(self._dtype))
        sparse_in_ND = (unit_ND * self._sparse_scale_D).to(self._dtype)
        return dense_ND, self._experts(sparse_in_ND, shares_NK, indices_NK)


class RmsNorm(nn.Module):
    """RMS norm with its scale.

    Args:
        scale_D: factor of each column; may have one row per head.
        size: width.
        eps: added to the mean square.
    """

    def __init__(self, scale_D: Tensor, size: int, eps: float) -> None:
        super().__init__()
        self._scale_D = scale_D.detach().float() * size**0.5
        self._least = torch.full((1,), (size * eps) ** 0.5)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Returns the norm of `x`, float32."""
        return (x_ND * self._scale_D).div_(self.length(x_ND))

    def added_to(self, base_ND: Tensor, x_ND: Tensor) -> Tensor:
        """Returns `base` plus the norm of `x`."""
        return torch.addcdiv(base_ND, x_ND * self._scale_D, self.length(x_ND))

    def length(self, x_ND: Tensor) -> Tensor:
        """Returns the divisors that scale the rows of `x` to length 1."""
        # Two operations where a mean of squares takes several; `hypot` adds `eps` under the root.
        return torch.linalg.vector_norm(x_ND, 2, [-1], True).hypot_(self._least)


def product(module: nn.Module) -> nn.Module:
    """Returns a packed linear layer; a module of another class unchanged."""
    return PackedMatrix(module.weight) if type(module) is nn.Linear else module


def mlp(module: GatedMLP) -> nn.Module:
    """Returns a packed gated MLP; one of another class unchanged."""
    return PackedMLP(module) if type(module.gate_up_proj) is nn.Linear else module


def _read_scales(layer: Layer, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Returns the factors that rows of length 1 get for the MLP and for the experts, [D] each."""
    dense, sparse = layer.pre_feedforward_layernorm, layer.pre_feedforward_layernorm_2
    width = config.hidden_size**0.5
    return dense.weight.detach().float() * width, sparse.weight.detach().float() * width


def _runs_together(layer: Layer, config: ModelConfig) -> bool:
    are_plain = type(layer.experts) is Experts and all(
        type(module) is nn.Linear for module in (layer.mlp.gate_up_proj, layer.mlp.down_proj)
    )
    is_cheap = layer.pre_feedforward_layernorm.weight.dtype is torch.bfloat16
    return are_plain and is_cheap and config.num_experts <= _DENSE_EXPERTS_PER_CHOSEN * config.top_k_experts
