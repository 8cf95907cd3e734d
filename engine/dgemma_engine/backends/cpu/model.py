"""A small DiffusionGemma on a processor, as a `PackedModel`.

Shape legend: N tokens of a pass, L canvas positions, P rows of a pass (the tokens, then padding:
`packing.cpu.filled`), D hidden, V vocabulary.
"""

from __future__ import annotations

from dgemma_kernels.packing.cpu import PackedMatrix, filled, num_filled
from dgemma_kernels.reference.plain import softcap
from torch import Tensor, nn

from dgemma_engine.backends.cpu.feed_forward import RmsNorm
from dgemma_engine.backends.cpu.layer_stack import scripted, unspecialised
from dgemma_engine.backends.cpu.layers import PackedLayer, PackedSelfConditioning
from dgemma_engine.backends.cpu.packed_model import PackedModel
from dgemma_engine.model.devices import is_small
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.layers import Layer
from dgemma_engine.model.transformer import DiffusionGemma, embed_scale


def pack_for_cpu(model: DiffusionGemma) -> DiffusionModel:
    """Returns the model to run: a `CpuModel` of a small model on a processor, `model` itself for any other.

    Args:
        model: in inference mode, its weights final.
    """
    num_values = sum(parameter.numel() for parameter in model.parameters())
    return CpuModel(model) if is_small(num_values, model.device) else model


class _Capped(nn.Module):
    """Logits with the softcap."""

    def __init__(self, to_vocabulary: PackedMatrix, cap: float) -> None:
        super().__init__()
        self._to_vocabulary, self._cap = to_vocabulary, cap

    def forward(self, hidden_PD: Tensor) -> Tensor:
        """Returns [P, V], float32."""
        return softcap(self._to_vocabulary(hidden_PD), self._cap)


class CpuModel(PackedModel):
    """A DiffusionGemma with packed weights.

    Args:
        model: the plain model; of its weights only the embeddings stay in use, the others are packed.
    """

    has_self_conditioning = True

    def __init__(self, model: DiffusionGemma) -> None:
        config, weight_VD = model.config, model.embed_tokens.weight.detach()
        layers = [PackedLayer(layer, config) for layer in model.layers if isinstance(layer, Layer)]
        norm = RmsNorm(model.norm.weight, config.hidden_size, config.rms_norm_eps)
        super().__init__(config, layers, norm, weight_VD.dtype)
        self._plain = model
        self._scale = embed_scale(config.hidden_size, self.dtype)
        self_conditioning = scripted(PackedSelfConditioning(model.self_conditioning, config))
        self._self_conditioning = self_conditioning.call
        to_vocabulary = PackedMatrix(weight_VD)
        raw, capped = scripted(to_vocabulary), scripted(_Capped(to_vocabulary, config.final_logit_softcapping))
        from_vocabulary = scripted(PackedMatrix(weight_VD.t()))
        self._to_vocabulary, self._to_capped = raw.call, capped.call
        self._from_vocabulary = from_vocabulary.call
        self._note_compilation([part.refusal for part in (self_conditioning, raw, capped, from_vocabulary)])
        self._probs_PV = weight_VD.new_empty(0, config.vocab_size)

    def embed(self, ids_BT: Tensor) -> Tensor:
        """See `DiffusionModel.embed`."""
        return self._plain.embed(ids_BT)

    def logits(self, hidden_BLD: Tensor) -> Tensor:
        """See `DiffusionModel.logits`."""
        hidden_ND = hidden_BLD.flatten(0, 1)
        with unspecialised():
            return self._to_capped(filled(hidden_ND))[: len(hidden_ND)].unflatten(0, hidden_BLD.shape[:2])

    def raw_logits(self, hidden_ND: Tensor) -> Tensor:
        """See `DiffusionModel.raw_logits`."""
        with unspecialised():
            return self._to_vocabulary(filled(hidden_ND))[: len(hidden_ND)]

    def soft_embeddings(self, probs_BLV: Tensor) -> Tensor:
        """See `DiffusionModel.soft_embeddings`."""
        probs_NV = probs_BLV.flatten(0, 1)
        num_positions, num_rows = len(probs_NV), num_filled(len(probs_NV))
        if num_rows > len(self._probs_PV):
            self._probs_PV = probs_NV.new_zeros(num_rows, probs_NV.shape[1], dtype=self.dtype)
        # Nothing reads the stale values in the padding.
        self._probs_PV[:num_positions].copy_(probs_NV)
        with unspecialised():
            soft_ND = self._from_vocabulary(self._probs_PV[:num_rows])[:num_positions].mul_(self._scale)
        return soft_ND.unflatten(0, probs_BLV.shape[:2])

    def _canvas_states(self, ids_L: Tensor, soft_BLD: Tensor | None) -> Tensor:
        """See `PackedModel._canvas_states`."""
        soft_PD = None if soft_BLD is None else filled(soft_BLD[0])
        with unspecialised():
            return self._self_conditioning(filled(self._embedded(ids_L)), soft_PD)

    def _embedded(self, ids_N: Tensor) -> Tensor:
        """See `PackedModel._embedded`."""
        return self._plain.embed_tokens(ids_N).float() * self._scale
