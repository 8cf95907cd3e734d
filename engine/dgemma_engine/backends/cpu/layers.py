"""The layers of a small DiffusionGemma for a processor: what `model/layers.py` computes, in few operations.

A small model on a processor spends its time between operations, not in them. So hidden states stay float32 from layer
to layer (no conversions, and a norm is two operations and a division), matrices are packed once, those with the same
input are one product, norm scales are folded into the weights after them, and keys and values are written in place.
Without gradients. Later changes of weights are not read (docs/decisions/0013).

Shape legend: N tokens of a pass, P its rows (the tokens, then padding: `packing.cpu.filled`), D hidden, O width of all
heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dgemma_engine.backends.cpu.attention import GroupedAttention, Heads
from dgemma_engine.backends.cpu.feed_forward import FeedForward, RmsNorm, mlp
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.model.layers import Layer, SelfConditioning


class PackedLayer(nn.Module):
    """One layer.

    Args:
        layer: source of the weights; a module of another class than `model/layers.py` makes is called unchanged.
        config: dimensions.
    """

    def __init__(self, layer: Layer, config: ModelConfig) -> None:
        super().__init__()
        attention = layer.self_attn
        self._encode_scalar, self._decode_scalar = layer.encoder_layer_scalar.item(), layer.layer_scalar.item()
        self.heads = Heads(layer, config)
        self.attend = GroupedAttention(attention.num_heads, attention.num_kv_heads, attention.head_dim, 1.0)
        self._feed = FeedForward(layer, config)

    def feed(self, x_PD: Tensor, attended_PO: Tensor, num_causal: int, factors: list[Tensor]) -> Tensor:
        """Returns the layer's output from its input and the attention's output; tokens in causal mode come first.

        The family has no adapters: `factors` is empty.
        """
        return self._apply_scalar(self._feed(x_PD, attended_PO), num_causal)

    def _apply_scalar(self, x_PD: Tensor, num_causal: int) -> Tensor:
        """Multiplies, in place, by the scalars of the two modes."""
        encode, decode = self._encode_scalar, self._decode_scalar
        if 0 < num_causal and num_causal < x_PD.size(0) and encode != decode:  # noqa: SIM300, for TorchScript
            x_PD[:num_causal].mul_(encode)
            x_PD[num_causal:].mul_(decode)
            return x_PD
        scalar = encode if num_causal else decode
        return x_PD if scalar == 1.0 else x_PD.mul_(scalar)


class PackedSelfConditioning(nn.Module):
    """Adds the self-conditioning signal to the canvas embeddings.

    Args:
        module: source of the weights.
        config: dimensions.
    """

    def __init__(self, module: SelfConditioning, config: ModelConfig) -> None:
        super().__init__()
        self._dtype = module.pre_norm.weight.dtype
        self._pre_norm = RmsNorm(module.pre_norm.weight, config.hidden_size, config.rms_norm_eps)
        self._mlp = mlp(module.mlp)
        self._norm = RmsNorm(torch.ones(config.hidden_size), config.hidden_size, config.rms_norm_eps)

    def forward(self, x_ND: Tensor, soft_ND: Tensor | None) -> Tensor:
        """Returns [N, D], float32; `soft_ND` None is the first step."""
        if soft_ND is not None:
            x_ND = x_ND + self._mlp(self._pre_norm(soft_ND.float()).to(self._dtype))
        return self._norm(x_ND)
