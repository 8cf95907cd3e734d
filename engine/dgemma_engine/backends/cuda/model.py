"""A DiffusionGemma of fused operations, from the embedding to the token distribution: the model of a GPU.

The same interface for one row of the batch (B = 1) and a `PromptCache`, and below it passes over tensors that lie on
the device, without host synchronisation, so that `step_graphs.py` can capture them.

Shape legend: N tokens of a pass, T of them in causal mode before L of a canvas; D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from dgemma_kernels.tensors.formats import Output, Rows, WeightFormat
from dgemma_kernels.tensors.vocabulary_distribution import Banned, VocabularyDistribution
from torch import Tensor, nn

from dgemma_engine.backends.cuda.kv_table import KVTable, Stores
from dgemma_engine.backends.cuda.layers import AttentionMetadata, FusedLayer, FusedLinear, FusedSelfConditioning
from dgemma_engine.backends.cuda.weights import plain
from dgemma_engine.model.attention_masks import ALL_VISIBLE, AttentionMasks
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.model.devices import EDIT_TOKENS
from dgemma_engine.model.diffusion_model import ModelDefaults
from dgemma_engine.model.kv_cache import KVCache, PromptCache, prompt_cache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.rotary import RotaryTable
from dgemma_engine.model.transformer import embed_scale


class FusedModel(ModelDefaults):
    """A `DiffusionModel` of fused operations.

    Args:
        config: dimensions.
        ops: with fused operations.
        embed_tokens: embeddings, which are the output matrix too.
        begin: prepares a canvas for the first layer.
        layers: all of them.
        norm_D: scale of the last norm.
    """

    has_self_conditioning = True
    is_compiled = True
    compiles_on_first_pass = True
    edit_tokens: int | None = EDIT_TOKENS

    def __init__(
        self,
        config: ModelConfig,
        ops: Ops,
        *,
        embed_tokens: nn.Embedding,
        begin: FusedSelfConditioning,
        layers: Sequence[FusedLayer],
        norm_D: Tensor,
    ) -> None:
        assert ops.fused is not None
        self.config, self._ops, self._fused = config, ops, ops.fused
        self.embed_tokens, self.rotary = embed_tokens, RotaryTable(config)
        self._begin, self._stack = begin, list(layers)
        self._to_vocabulary = FusedLinear(plain(embed_tokens.weight.detach()), ops.fused)
        self._end = Output(weight_D=norm_D)
        self._scale = embed_scale(config.hidden_size, self.dtype)
        self._arrivals_1 = torch.zeros(1, dtype=torch.int32, device=self.device)
        self._kv_table = KVTable(config, self.dtype, self.device)
        self.weight_formats: frozenset[WeightFormat] = frozenset(begin.weight_formats).union(
            *(layer.weight_formats for layer in self._stack)
        )

    @property
    def device(self) -> torch.device:
        """See `DiffusionModel.device`."""
        return self.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """See `DiffusionModel.dtype`."""
        return self.embed_tokens.weight.dtype

    @property
    def renoises_ahead(self) -> bool:
        """Whether captured steps make the next canvas before the host has the scores, see `FusedOps`."""
        return self._fused.renoises_ahead(self.device)

    def encode(
        self,
        ids_BT: Tensor,
        cache: KVCache,
        *,
        positions_BT: Tensor | None = None,
        attention_masks: AttentionMasks | None = None,
    ) -> Tensor:
        """See `DiffusionModel.encode`; masks must be of packed rows."""
        kept, num_new = prompt_cache(cache), ids_BT.shape[1]
        metadata = self._causal_metadata(kept.length, num_new, positions_BT, attention_masks)
        rows = self.run(self.embed(ids_BT[0]), metadata, self.stores(kept, num_new))
        cache.advance(num_new)
        return rows.data_ND[None]

    def prefill(self, ids_BT: Tensor, cache: KVCache) -> None:
        """See `DiffusionModel.prefill`."""
        kept, num_new = prompt_cache(cache), ids_BT.shape[1]
        metadata, stores = self._causal_metadata(kept.length, num_new, None, None), self.stores(kept, num_new)
        self.store_kv(self.embed(ids_BT[0]), metadata, stores)
        cache.advance(num_new)

    def decode(
        self,
        canvas_BL: Tensor,
        cache: KVCache,
        *,
        soft_BLD: Tensor | None = None,
        positions_BL: Tensor | None = None,
        attention_masks: AttentionMasks = ALL_VISIBLE,
    ) -> Tensor:
        """See `DiffusionModel.decode`; masks must be of packed rows."""
        return self._decode(canvas_BL[:, :0], canvas_BL, cache, soft_BLD, positions_BL, attention_masks)

    def decode_after(
        self,
        block_BT: Tensor,
        canvas_BL: Tensor,
        cache: KVCache,
        *,
        soft_BLD: Tensor | None = None,
        positions_BL: Tensor | None = None,
        attention_masks: AttentionMasks = ALL_VISIBLE,
    ) -> Tensor:
        """See `DiffusionModel.decode_after`; masks must be of packed rows."""
        hidden_1LD = self._decode(block_BT, canvas_BL, cache, soft_BLD, positions_BL, attention_masks)
        cache.advance(block_BT.shape[1])
        return hidden_1LD

    def embed(self, ids_BT: Tensor) -> Tensor:
        """See `DiffusionModel.embed`."""
        return self.embed_tokens(ids_BT) * self._scale

    def raw_logits(self, hidden_ND: Tensor) -> Tensor:
        """See `DiffusionModel.raw_logits`."""
        return self.vocabulary_logits(Rows(data_ND=hidden_ND.contiguous()))

    def logits(self, hidden_BLD: Tensor) -> Tensor:
        """See `DiffusionModel.logits`."""
        logits_NV = self.raw_logits(hidden_BLD.flatten(0, 1))
        return self._ops.softcap(logits_NV, self.config.final_logit_softcapping).unflatten(0, hidden_BLD.shape[:2])

    def soft_embeddings(self, probs_BLV: Tensor) -> Tensor:
        """See `DiffusionModel.soft_embeddings`."""
        soft_ND = self.expected_embeddings(probs_BLV.flatten(0, 1).to(self.dtype).contiguous())
        return soft_ND.unflatten(0, probs_BLV.shape[:2])

    def stores(self, cache: PromptCache, num_tokens: int) -> Stores:
        """Makes a prompt the one that passes read and write, with room for `num_tokens` more.

        Returns:
            Where the keys and values of each layer lie: the same for every prompt, so that a captured pass serves all.
        """
        self._kv_table.write(cache, num_tokens)
        return self._kv_table.stores

    def metadata(
        self,
        *,
        num_causal: int,
        row_N: Tensor,
        position_N: Tensor,
        num_visible_1: Tensor,
        num_stored_1: Tensor,
        num_before_canvas_1: Tensor,
        canvas_start_1: Tensor,
        num_tokens: int | None = None,
    ) -> AttentionMetadata:
        """Returns a pass's `AttentionMetadata`; what it needs is computed on the device.

        Args:
            num_tokens: of the whole pass, where these are a segment of it.
        """
        config = self.config
        # An aborted launch may have left a count other than 0, and then no later pass would sort its tokens.
        self._arrivals_1.zero_()
        return AttentionMetadata(
            num_causal=num_causal,
            row_N=row_N,
            position_N=position_N,
            num_visible_1=num_visible_1,
            num_stored_1=num_stored_1,
            num_before_canvas_1=num_before_canvas_1,
            canvas_start_1=canvas_start_1,
            rotary=self.rotary(position_N[None], self.dtype),
            tile_rows=self._fused.tile_rows(
                num_tokens or len(row_N), config.top_k_experts, config.num_experts, self.device
            ),
            arrivals_1=self._arrivals_1,
        )

    def input_states(self, block_T: Tensor, canvas_L: Tensor, soft_LD: Tensor | None) -> Tensor:
        """Returns the hidden states of a block and of a canvas for the first layer, [T + L, D]."""
        canvas_LD = self._begin(self.embed(canvas_L), soft_LD)
        return torch.cat((self.embed(block_T), canvas_LD)) if len(block_T) else canvas_LD

    def run(self, x_ND: Tensor, metadata: AttentionMetadata, stores: Stores) -> Rows:
        """Runs all layers and the last norm; returns plain rows [N, D]."""
        return self.run_segments(x_ND, [(metadata, stores)])

    def run_segments(self, x_ND: Tensor, segments: Sequence[tuple[AttentionMetadata, Stores]]) -> Rows:
        """Does what `run` does, over segments with a prompt each, see `FusedLayer.run`."""
        return self._through(self._stack, x_ND, segments, self._end)[1]

    def store_kv(self, x_ND: Tensor, metadata: AttentionMetadata, stores: Stores) -> None:
        """Stores the keys and values of all layers, so the last one stops there."""
        *body, last = self._stack
        _x_ND, rows = self._through(body, x_ND, [(metadata, stores)], last.reads)
        last.store_kv(rows, metadata, stores[-1])

    def vocabulary_logits(self, rows: Rows, out_NV: Tensor | None = None) -> Tensor:
        """Returns logits before their softcap, [N, V], in the weights' dtype, in `out_NV` if it is given."""
        return self._to_vocabulary(rows, out_NV)

    def token_distribution(
        self, logits_NV: Tensor, temperature_1: Tensor, levels_N: Tensor, banned: Banned | None
    ) -> VocabularyDistribution:
        """Returns best token, entropy, confidence and a draw of each position; probabilities replace the logits."""
        return self._fused.distribution(logits_NV, temperature_1, levels_N, self.config.final_logit_softcapping, banned)

    def expected_embeddings(self, probs_NV: Tensor) -> Tensor:
        """Returns the expected embedding under each position's distribution, [N, D]."""
        return self._fused.soft_embeddings(probs_NV, self.embed_tokens.weight, self._scale)

    def _decode(
        self,
        block_BT: Tensor,
        canvas_BL: Tensor,
        cache: KVCache,
        soft_BLD: Tensor | None,
        positions_BL: Tensor | None,
        attention_masks: AttentionMasks,
    ) -> Tensor:
        kept, num_block, num_canvas = prompt_cache(cache), block_BT.shape[1], canvas_BL.shape[1]
        rows, end = attention_masks.rows, kept.length + num_block
        assert rows is not None or attention_masks.full is None, "a fused pass needs masks of packed rows"
        position_N = torch.arange(kept.length, end + num_canvas, dtype=torch.int32, device=self.device)
        if positions_BL is not None:
            position_N[num_block:] = positions_BL[0]
        row_N = torch.zeros_like(position_N)
        if rows is not None:
            row_N[num_block:] = rows.row_L
        stored_1, end_1 = self._number(kept.length), self._number(end)
        metadata = self.metadata(
            num_causal=num_block,
            row_N=row_N,
            position_N=position_N,
            num_visible_1=stored_1,
            num_stored_1=stored_1,
            num_before_canvas_1=end_1,
            canvas_start_1=end_1,
        )
        soft_LD = None if soft_BLD is None else soft_BLD[0].contiguous()
        x_ND = self.input_states(block_BT[0], canvas_BL[0], soft_LD)
        return self.run(x_ND, metadata, self.stores(kept, num_block + num_canvas)).data_ND[None, num_block:]

    def _causal_metadata(
        self, num_past: int, num_new: int, positions_BT: Tensor | None, attention_masks: AttentionMasks | None
    ) -> AttentionMetadata:
        rows = None if attention_masks is None else attention_masks.rows
        assert attention_masks is None or rows is not None, "a fused pass needs masks of packed rows"
        if positions_BT is None:
            position_N = torch.arange(num_past, num_past + num_new, dtype=torch.int32, device=self.device)
        else:
            position_N = positions_BT[0].int()
        stored_1 = self._number(num_past)
        hidden_from = None if rows is None else rows.hidden_from
        return self.metadata(
            num_causal=num_new,
            row_N=torch.zeros_like(position_N) if rows is None else rows.row_L.int(),
            position_N=position_N,
            num_visible_1=stored_1 if hidden_from is None else self._number(hidden_from),
            num_stored_1=stored_1,
            num_before_canvas_1=stored_1,
            canvas_start_1=stored_1,
        )

    def _through(
        self,
        layers: Sequence[FusedLayer],
        x_ND: Tensor,
        segments: Sequence[tuple[AttentionMetadata, Stores]],
        reader: Output,
    ) -> tuple[Tensor, Rows]:
        """Returns the residual stream after consecutive layers, and its norm through `reader`."""
        readers = [*(layer.reads for layer in layers), reader]
        (rows,) = self._fused.norm(x_ND, (readers[0],), self.config.rms_norm_eps)
        for index, (layer, following) in enumerate(zip(layers, readers[1:], strict=True)):
            x_ND, rows = layer.run(x_ND, rows, [(each, stores[index]) for each, stores in segments], following)
        return x_ND, rows

    def _number(self, value: int) -> Tensor:
        """Returns an int32 on the device; filling it needs no host synchronisation, copying it would."""
        return torch.full((1,), value, dtype=torch.int32, device=self.device)
