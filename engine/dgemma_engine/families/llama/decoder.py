"""What decoders built like a Llama share: embedding, layers, norm and head, without a way through them.

Shape legend: B rows, T tokens, L canvas positions, N positions of all rows, D hidden, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_engine.families.llama.config import LlamaConfig
from dgemma_engine.families.llama.layers import LlamaLayer
from dgemma_engine.model.config import LayerKind
from dgemma_engine.model.diffusion_model import ModelDefaults
from dgemma_engine.model.layers import Norm, token_embedding
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.rotary import Rotary, RotaryTable


class Decoder(nn.Module, ModelDefaults):
    """The weights, and the methods of `DiffusionModel` that need no pass. There is no self-conditioning.

    Args:
        config: dimensions.
        ops: the operations it calls.
        has_head: whether the output matrix is one of its own, `lm_head`, and not the embedding.
    """

    def __init__(self, config: LlamaConfig, ops: Ops, *, has_head: bool = False) -> None:
        super().__init__()
        self.config = config
        self._ops = ops
        self.embed_tokens = token_embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LlamaLayer(config, i, ops) for i in range(config.num_layers))
        self.norm = Norm(config.hidden_size, config.rms_norm_eps, ops)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False) if has_head else None
        self.rotary = RotaryTable(config)

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, hidden states, keys and values."""
        return self.embed_tokens.weight.dtype

    def embed(self, ids_BT: Tensor) -> Tensor:
        """See `DiffusionModel.embed`; embeddings are not scaled."""
        return self.embed_tokens(ids_BT)

    def logits(self, hidden_BLD: Tensor) -> Tensor:
        """See `DiffusionModel.logits`; the family caps none."""
        return self.raw_logits(hidden_BLD.flatten(0, -2)).float().unflatten(0, hidden_BLD.shape[:-1])

    def raw_logits(self, hidden_ND: Tensor) -> Tensor:
        """See `DiffusionModel.raw_logits`."""
        head = self.embed_tokens if self.lm_head is None else self.lm_head
        return F.linear(hidden_ND, head.weight)

    def soft_embeddings(self, probs_BLV: Tensor) -> Tensor:
        """See `DiffusionModel.soft_embeddings`."""
        return probs_BLV.to(self.dtype) @ self.embed_tokens.weight

    def rotary_of(self, positions_BT: Tensor) -> Rotary:
        """Returns the rotation of the one layer kind at positions, int64, on the model's device."""
        return self.rotary(positions_BT, self.dtype)[LayerKind.FULL]
