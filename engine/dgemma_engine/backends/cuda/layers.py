"""The layers of a DiffusionGemma as fused operations: one read of a row where `model/layers.py` takes several.

A layer takes the residual stream and its norm, as the layer before it left both, and leaves both for the next one. All
sizes follow from the number of tokens, and lengths are read on the device, so that a pass can be captured in a graph.
Keys and values are written where they are kept. For one row of the batch; without gradients (docs/decisions/0023).

Shape legend: N tokens of a pass, T of them in causal mode before L of a canvas; D hidden, H query heads, X heads of all
kinds, d head size, E experts, K experts per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from dgemma_kernels.tensors.formats import Output, RowFormat, Rows, Weight, WeightFormat
from dgemma_kernels.tensors.kv_store import KVStore
from dgemma_kernels.tensors.routing import Routing
from torch import Tensor, nn

from dgemma_engine.backends.cuda.weights import dense_weight, expert_weights
from dgemma_engine.model.config import LayerKind, ModelConfig
from dgemma_engine.model.layers import GatedMLP, Layer, SelfConditioning
from dgemma_engine.model.ops import FusedOps
from dgemma_engine.model.rotary import Rotary


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionMetadata:
    """Rows, positions and visible keys of the tokens of a pass, all on the device.

    Attributes:
        num_causal: T, the first tokens, which are in causal mode; the others are a canvas.
        row_N: the branch or canvas of each token, int32.
        position_N: int32; the causal mask depends on it.
        num_visible_1: stored tokens from this index on are hidden from causal tokens, int32.
        num_stored_1: tokens stored before this pass, int32.
        num_before_canvas_1: stored and causal tokens that the canvas attends to, int32.
        canvas_start_1: position in the store of the canvas's first key, int32; after `num_before_canvas_1` where the
            causal tokens are padded to a captured length.
        rotary: of the positions.
        tile_rows: of the experts' tiles, of all tokens of the pass.
        arrivals_1: int32, 0: scratch of the routing kernel.
    """

    num_causal: int
    row_N: Tensor
    position_N: Tensor
    num_visible_1: Tensor
    num_stored_1: Tensor
    num_before_canvas_1: Tensor
    canvas_start_1: Tensor
    rotary: dict[LayerKind, Rotary]
    tile_rows: int
    arrivals_1: Tensor


class FusedLinear:
    """One projection.

    Args:
        weight: [O, I].
        ops: the operations.

    Attributes:
        row_format: of its input.
        weight_format: of its weight.
    """

    def __init__(self, weight: Weight, ops: FusedOps) -> None:
        self.weight_format = weight.format
        self.row_format = RowFormat.FP8_TOKEN if weight.format is WeightFormat.FP8 else RowFormat.PLAIN
        self._weight: Any = ops.pack(weight)
        self._ops = ops

    def __call__(self, rows: Rows, out_NO: Tensor | None = None) -> Tensor:
        """Returns the product, [N, O]."""
        return self._ops.linear(rows, self._weight, out_NO)

    def of_plain(self, x_NI: Tensor) -> Tensor:
        """Returns the product with rows that are not quantised yet."""
        if self.row_format is RowFormat.PLAIN:
            return self(Rows(data_ND=x_NI))
        return self(self._ops.quantise(x_NI, self.row_format))


class FusedMLP:
    """`down(gelu_tanh(gate(x)) * up(x))` of rows in `row_format`.

    Args:
        mlp: source of the weights.
        ops: the operations.
        dtype: of weights that have to be expanded.
    """

    def __init__(self, mlp: GatedMLP, ops: FusedOps, dtype: torch.dtype) -> None:
        self._gate_up = FusedLinear(dense_weight(mlp.gate_up_proj, dtype), ops)
        self._down = FusedLinear(dense_weight(mlp.down_proj, dtype), ops)
        self._ops = ops
        self.row_format = self._gate_up.row_format
        self.weight_formats = {self._gate_up.weight_format, self._down.weight_format}

    def __call__(self, rows: Rows) -> Tensor:
        """Returns [N, D]."""
        return self._down(self._ops.gated_gelu(self._gate_up(rows), self._down.row_format))


class FusedLayer:
    """One layer.

    Args:
        layer: source of the weights; they are packed again, so drop the layer afterwards.
        config: dimensions.
        ops: the operations.
        dtype: of hidden states, and of weights that have to be expanded.

    Attributes:
        kind: full or sliding.
        reads: the norm of its input.
        weight_formats: formats of its weights.
    """

    def __init__(self, layer: Layer, config: ModelConfig, ops: FusedOps, dtype: torch.dtype) -> None:
        attention = layer.self_attn
        self._ops, self._eps = ops, config.rms_norm_eps
        self.kind = attention.kind
        self._window = config.sliding_window if self.kind is LayerKind.SLIDING else None
        self._num_heads, self._head_dim = attention.num_heads, attention.head_dim
        self._num_selected = config.top_k_experts
        self._qkv = FusedLinear(dense_weight(attention.qkv_proj, dtype), ops)
        self._out = FusedLinear(dense_weight(attention.o_proj, dtype), ops)
        self._q_norm_d, self._k_norm_d = attention.q_norm.weight.detach(), attention.k_norm.weight.detach()
        self._mlp = FusedMLP(layer.mlp, ops, dtype)
        gate_up, down = expert_weights(layer.experts, dtype)
        self._gate_up, self._down = ops.pack(gate_up), ops.pack(down)
        self.weight_formats = {gate_up.format, self._qkv.weight_format, self._out.weight_format}
        self.weight_formats |= self._mlp.weight_formats
        self._router_ED = layer.router.proj.weight.detach()
        self._per_expert_E = layer.router.per_expert_scale.detach()
        self._after_attention_D = layer.post_attention_layernorm.weight.detach()
        expert_format = RowFormat.FP8_GROUP if gate_up.format is WeightFormat.FP8 else RowFormat.PLAIN
        router_D = layer.router.scale.detach().float() * config.hidden_size**-0.5
        self._readers = (
            Output(weight_D=router_D),
            Output(weight_D=layer.pre_feedforward_layernorm.weight.detach(), format=self._mlp.row_format),
            Output(weight_D=layer.pre_feedforward_layernorm_2.weight.detach(), format=expert_format),
        )
        self._after_both = (
            layer.post_feedforward_layernorm_1.weight.detach(),
            layer.post_feedforward_layernorm_2.weight.detach(),
            layer.post_feedforward_layernorm.weight.detach(),
        )
        self._canvas_scalar_1, self._causal_scalar_1 = layer.layer_scalar, layer.encoder_layer_scalar
        self.reads = Output(weight_D=layer.input_layernorm.weight.detach(), format=self._qkv.row_format)

    def run(
        self, x_ND: Tensor, rows: Rows, segments: Sequence[tuple[AttentionMetadata, KVStore]], reader: Output
    ) -> tuple[Tensor, Rows]:
        """Runs the layer.

        Args:
            x_ND: residual stream.
            rows: its norm through `reads`.
            segments: consecutive tokens that make up the pass, and where their keys and values are kept, each after
                the stored ones; several are canvases.
            reader: the norm that comes next.

        Returns:
            The residual stream and its norm through `reader`.
        """
        ops, eps = self._ops, self._eps
        heads_NXd = self._heads(rows)
        if len(segments) == 1:
            attended = self._attend(heads_NXd, *segments[0])
        else:
            parts = heads_NXd.split([len(metadata.row_N) for metadata, _store in segments])
            attended = torch.cat([self._attend(part, *each) for part, each in zip(parts, segments, strict=True)])
        metadata = segments[0][0]
        x_ND, (routed, dense_in, sparse_in) = ops.add_norm(
            x_ND, self._out.of_plain(attended), self._after_attention_D, self._readers, eps
        )

        def route() -> Routing:
            return ops.route(
                routed.data_ND, self._router_ED, self._per_expert_E, self._num_selected, metadata.tile_rows,
                arrivals_1=metadata.arrivals_1,
            )  # fmt: skip

        routing, dense_ND = ops.beside(route, lambda: self._mlp(dense_in), x_ND.device)
        parts_NKD = ops.experts(sparse_in, routing, self._gate_up, self._down)
        scalar = self._scalar(metadata)
        x_ND, (following,) = ops.merge_norm(x_ND, dense_ND, parts_NKD, self._after_both, scalar, (reader,), eps)
        return x_ND, following

    def store_kv(self, rows: Rows, metadata: AttentionMetadata, store: KVStore) -> None:
        """Stores keys and values only."""
        self._queries(self._heads(rows), metadata, store)

    def _heads(self, rows: Rows) -> Tensor:
        """Returns queries, keys and values of the tokens before norm and rotary, [N, X, d]."""
        return self._qkv(rows).unflatten(-1, (-1, self._head_dim))

    def _queries(self, heads_NXd: Tensor, metadata: AttentionMetadata, store: KVStore) -> Tensor:
        """Returns queries [N, H, d]; keys and values are stored."""
        turn = metadata.rotary[self.kind]
        return self._ops.norm_rotary(
            heads_NXd, self._q_norm_d, self._k_norm_d, turn.cos[0], turn.sin[0], store, metadata.num_stored_1,
            self._num_heads, self._eps,
        )  # fmt: skip

    def _attend(self, heads_NXd: Tensor, metadata: AttentionMetadata, store: KVStore) -> Tensor:
        """Returns the heads' outputs side by side, [N, H d]; keys and values are stored."""
        q_NHd = self._queries(heads_NXd, metadata, store)
        num_causal, outputs = metadata.num_causal, list[Tensor]()
        if num_causal:
            row_T, position_T = metadata.row_N[:num_causal], metadata.position_N[:num_causal]
            seen = (metadata.num_visible_1, metadata.num_stored_1)
            outputs.append(self._ops.causal(q_NHd[:num_causal], store, row_T, position_T, *seen, self._window))
        if num_causal < len(q_NHd):
            seen = (metadata.num_before_canvas_1, metadata.canvas_start_1)
            row_L = metadata.row_N[num_causal:]
            outputs.append(self._ops.canvas(q_NHd[num_causal:], store, row_L, *seen, self._window))
        return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)).flatten(1)

    def _scalar(self, metadata: AttentionMetadata) -> Tensor:
        num_tokens = len(metadata.row_N)
        if metadata.num_causal == num_tokens:
            return self._causal_scalar_1
        if not metadata.num_causal:
            return self._canvas_scalar_1
        num_canvas = num_tokens - metadata.num_causal
        return torch.cat((self._causal_scalar_1.expand(metadata.num_causal), self._canvas_scalar_1.expand(num_canvas)))


class FusedSelfConditioning:
    """Adds the self-conditioning signal to the embeddings of a canvas.

    Args:
        module: source of the weights.
        config: dimensions.
        ops: the operations.
        dtype: of weights that have to be expanded.
    """

    def __init__(self, module: SelfConditioning, config: ModelConfig, ops: FusedOps, dtype: torch.dtype) -> None:
        self._ops, self._eps = ops, config.rms_norm_eps
        self._mlp = FusedMLP(module.mlp, ops, dtype)
        self._reads = Output(weight_D=module.pre_norm.weight.detach(), format=self._mlp.row_format)
        self.weight_formats = self._mlp.weight_formats

    def __call__(self, x_LD: Tensor, soft_LD: Tensor | None) -> Tensor:
        """Returns the canvas's first hidden states, [L, D]; a signal of zeros adds nothing, as None does."""
        if soft_LD is not None:
            (rows,) = self._ops.norm(soft_LD, (self._reads,), self._eps)
            x_LD = x_LD + self._mlp(rows)
        return self._ops.norm(x_LD, (Output(),), self._eps)[0].data_ND


def fused_layers(
    layers: Sequence[nn.Module], config: ModelConfig, ops: FusedOps, dtype: torch.dtype
) -> list[FusedLayer]:
    """Converts the layers of a model into fused ones, one at a time.

    Args:
        layers: of a model; each is emptied once it was read, so that memory for one layer more is enough.
        config: dimensions.
        ops: the operations.
        dtype: of hidden states.
    """
    fused = list[FusedLayer]()
    for layer in layers:
        assert isinstance(layer, Layer)
        fused.append(FusedLayer(layer, config, ops, dtype))
        for name, _module in list(layer.named_children()):
            setattr(layer, name, None)
    return fused
