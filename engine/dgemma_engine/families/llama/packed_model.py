"""A small Llama on a processor, as a `PackedModel`.

Shape legend: B rows, N tokens of a pass, L canvas positions, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dgemma_kernels.packing.cpu import PackedGate, PackedMatrix, filled
from dgemma_kernels.packing.few_bits import ProductKinds
from dgemma_kernels.packing.tables import DenseTable, EightBitTable
from torch import Tensor, nn

from dgemma_engine.backends.cpu.feed_forward import RmsNorm
from dgemma_engine.backends.cpu.packed_model import PackedModel
from dgemma_engine.families.llama.adaptation import merge_into
from dgemma_engine.families.llama.layers import LlamaLayer
from dgemma_engine.families.llama.model import LlamaModel
from dgemma_engine.families.llama.packed_layers import PackedLlamaLayer
from dgemma_engine.families.llama.shifted_canvas import CanvasShift
from dgemma_engine.model.attention_masks import ALL_VISIBLE, AttentionMasks
from dgemma_engine.model.canvas_pass import CanvasPass
from dgemma_engine.model.kv_cache import KVCache

# Rows for which a compact model's products take about as long as for one.
_COMPACT_ROWS = 8


class PackedLlama(PackedModel):
    """A Llama with packed weights.

    Args:
        model: the plain model, in inference mode on a processor; its layers are dropped one by one as they are packed,
            and of its weights only the embeddings stay in use.
        kinds: what products read.
        causal: factors of the causal adapter that is still to be merged, by the names of an adapter's file; None where
            there is none or it is merged already, and then no single token reads the base's 4 bits.
    """

    def __init__(self, model: LlamaModel, kinds: ProductKinds, causal: Mapping[str, Tensor] | None = None) -> None:
        config = model.config
        layers: list[nn.Module] = []
        for i, terms in enumerate(model.canvas_terms):
            layer = model.layers[i]
            assert isinstance(layer, LlamaLayer), "a model is packed once"
            unmerged = {} if causal is None else merge_into(layer, causal, i)
            layers.append(PackedLlamaLayer(layer, terms, config, kinds, unmerged))
            # Or both copies of all layers would be held at once, and with an adapter three.
            model.layers[i] = nn.Identity()
        norm = RmsNorm(model.norm.weight, config.hidden_size, config.rms_norm_eps)
        super().__init__(config, layers, norm, model.dtype)
        self._note_compilation(())
        embedding_VD = model.embed_tokens.weight.detach()
        head = model.embed_tokens if model.lm_head is None else model.lm_head
        self._to_vocabulary = PackedMatrix(head.weight.detach(), kinds.row, int8=kinds.is_compact)
        self._embedding = EightBitTable(embedding_VD) if kinds.is_compact else DenseTable(embedding_VD)
        self._shift = CanvasShift(config.sliding_window)
        modules = (module for layer in layers for module in layer.modules())
        in_layers = [each.few_bits for each in modules if isinstance(each, PackedMatrix | PackedGate)]
        packed = [self._to_vocabulary.few_bits, *in_layers]
        bits = {each.row_bits for each in packed} - {0}
        self._one_row_bits = " and ".join(map(str, sorted(bits)))
        self._is_int8 = any(each.input_levels for each in packed)
        self._is_compact = self._to_vocabulary.few_bits.input_levels > 0
        # Where a single token reads what several read, all of a pass is reading weights.
        most_rows = min((each.most_rows for each in in_layers if each.row_bits), default=1)
        self.checked_at_once = _COMPACT_ROWS if self._is_compact else most_rows

    @property
    def number_format(self) -> str:
        """See `DiffusionModel.number_format`."""
        parts = [super().number_format]
        if self._is_int8:
            parts.append("in MLPs and output matrix 8 bits" if self._is_compact else "in MLPs 8 bits")
        if self._one_row_bits:
            parts.append(f"for single tokens {self._one_row_bits} bits")
        return ", ".join(parts)

    def decode(
        self,
        canvas_BL: Tensor,
        cache: KVCache,
        *,
        soft_BLD: Tensor | None = None,
        positions_BL: Tensor | None = None,
        attention_masks: AttentionMasks = ALL_VISIBLE,
    ) -> Tensor:
        """See `DiffusionModel.decode`; each row begins with the prompt's last token, and `soft_BLD` must be None."""
        canvas = self._shift.of(canvas_BL, cache, positions_BL=positions_BL, attention_masks=attention_masks)
        hidden_1XD = super().decode(
            canvas.tokens(cache.ids()[:, -1:], canvas_BL),
            cache,
            soft_BLD=soft_BLD,
            positions_BL=canvas.positions_1X,
            attention_masks=canvas.attention_masks,
        )
        return hidden_1XD[:, canvas.state_L]

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
        """See `DiffusionModel.decode_after`; two passes, since an adapter takes part in the second one only."""
        self.prefill(block_BT, cache)
        return self.decode(
            canvas_BL, cache, soft_BLD=soft_BLD, positions_BL=positions_BL, attention_masks=attention_masks
        )

    def decode_together(self, passes: Sequence[CanvasPass]) -> list[Tensor]:
        """See `DiffusionModel.decode_together`."""
        shifted = [
            self._shift.of(
                each.canvas_1L, each.cache, positions_BL=each.positions_1L, attention_masks=each.attention_masks
            )
            for each in passes
        ]
        whole = [
            replace(
                each,
                canvas_1L=canvas.tokens(each.cache.ids()[:, -1:], each.canvas_1L),
                positions_1L=canvas.positions_1X,
                attention_masks=canvas.attention_masks,
            )
            for each, canvas in zip(passes, shifted, strict=True)
        ]
        states = super().decode_together(whole)
        return [hidden_1XD[:, canvas.state_L] for hidden_1XD, canvas in zip(states, shifted, strict=True)]

    def embed(self, ids_BT: Tensor) -> Tensor:
        """See `DiffusionModel.embed`; embeddings are not scaled."""
        return self._embedding(ids_BT).to(self.dtype)

    def logits(self, hidden_BLD: Tensor) -> Tensor:
        """See `DiffusionModel.logits`; the family caps none."""
        return self.raw_logits(hidden_BLD.flatten(0, 1)).float().unflatten(0, hidden_BLD.shape[:2])

    def raw_logits(self, hidden_ND: Tensor) -> Tensor:
        """See `DiffusionModel.raw_logits`."""
        return self._to_vocabulary(filled(hidden_ND))[: len(hidden_ND)]

    def soft_embeddings(self, probs_BLV: Tensor) -> Tensor:
        """See `DiffusionModel.soft_embeddings`."""
        return self._embedding.weighted(probs_BLV.to(self.dtype))

    def _canvas_states(self, ids_L: Tensor, soft_BLD: Tensor | None) -> Tensor:
        """See `PackedModel._canvas_states`."""
        assert soft_BLD is None, "this family has no self-conditioning"
        return filled(self._embedded(ids_L))

    def _embedded(self, ids_N: Tensor) -> Tensor:
        """See `PackedModel._embedded`."""
        return self._embedding(ids_N)


def num_values_of(model: LlamaModel) -> int:
    """Returns how many values the weights of a model have."""
    return sum(parameter.numel() for parameter in model.parameters())
