"""Hidden states of many holes in one pass: each block reads its document up to its start, its suffix, and itself.

Documents and suffixes are encoded once, without gradient; only the blocks' own tokens carry one. A block then computes
what the engine does when it goes on from a prompt with the suffix beside it (parallel context, arXiv 2212.10947).

Shape legend: B documents, T tokens of one, H blocks of one, R = B * H, N tokens of a block, S suffix tokens,
U different suffixes, G key-value heads, Q queries of a key-value head (N times its query heads), d head size, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_engine.families.llama.layers import Attend, LayerTerms
from dgemma_engine.families.llama.model import LlamaModel
from dgemma_engine.model.config import LayerKind
from dgemma_engine.model.graph_kv import GraphKV
from dgemma_engine.tools.adaptation.batches import SampleBatch


@dataclass(frozen=True, slots=True)
class Texts:
    """Keys and values of documents and suffixes, without gradient."""

    document: GraphKV
    suffix: GraphKV


def encode_texts(model: LlamaModel, batch: SampleBatch) -> Texts:
    """Returns what all parts of a batch read; the model has the adapter merged into it."""
    return Texts(
        document=_encoded(model, batch.document_BT, batch.document_positions_1T),
        suffix=_encoded(model, batch.suffix_US, batch.suffix_positions_US),
    )


def block_states(
    model: LlamaModel, batch: SampleBatch, texts: Texts, *, terms: Sequence[LayerTerms] | None = None
) -> Tensor:
    """Returns the states that score the targets of all blocks, [R, N, D].

    Args:
        model: reads the blocks.
        batch: documents, suffixes and blocks.
        texts: of the batch, or of the one that this is a part of.
        terms: of each layer, what an adapter adds to `model`; None adds nothing.
    """
    attend = _attend(batch, texts)
    rotary = model.rotary(batch.input_positions_RN, model.dtype)[LayerKind.FULL]
    x_RND = model.embed(batch.input_RN)
    for i, layer in enumerate(model.layers):
        x_RND = layer(x_RND, rotary, attend, None if terms is None else terms[i])
    return model.norm(x_RND)


def target_losses(model: LlamaModel, states_RND: Tensor, batch: SampleBatch) -> Tensor:
    """Returns the loss of each target that has a weight, in nats, float32, row by row."""
    is_target_RN = batch.weight_RN > 0
    logits = model.logits(states_RND[is_target_RN])
    return torch.nn.functional.cross_entropy(logits, batch.target_RN[is_target_RN], reduction="none")


@torch.no_grad()
def _encoded(model: LlamaModel, ids: Tensor, positions: Tensor) -> GraphKV:
    cache = GraphKV()
    model.encode(ids, cache, positions_BT=positions)
    return cache


def _attend(batch: SampleBatch, texts: Texts) -> Attend:
    num_documents, num_tokens = batch.document_BT.shape
    num_rows, num_new = batch.input_RN.shape
    num_suffix, num_blocks, device = batch.suffix_US.shape[1], num_rows // num_documents, batch.input_RN.device
    seen_RT = torch.arange(num_tokens, device=device) < batch.num_seen_R[:, None]
    beside_RS = torch.arange(num_suffix, device=device) < batch.num_suffix_R[:, None]
    causal_NN = torch.ones(num_new, num_new, dtype=torch.bool, device=device).tril()
    seen_RNX = torch.cat(
        (
            seen_RT[:, None].expand(-1, num_new, -1),
            beside_RS[:, None].expand(-1, num_new, -1),
            causal_NN.expand(num_rows, -1, -1),
        ),
        dim=2,
    )
    hidden_BH11NX = ~seen_RNX.unflatten(0, (num_documents, num_blocks))[:, :, None, None]

    def attend(layer_idx: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        doc_k_BGTd, doc_v_BGTd = texts.document.layer(layer_idx)
        suffix_k_UGSd, suffix_v_UGSd = texts.suffix.layer(layer_idx)
        own_k_RGYd = torch.cat((suffix_k_UGSd[batch.suffix_R], k), dim=2)
        own_v_RGYd = torch.cat((suffix_v_UGSd[batch.suffix_R], v), dim=2)
        num_kv_heads = k.shape[1]
        q_BHGQd = q.reshape(num_documents, num_blocks, num_kv_heads, -1, q.shape[-1])
        num_queries = q_BHGQd.shape[3]
        # One product for all blocks of a document: its keys are read once.
        q_BGXd = q_BHGQd.transpose(1, 2).flatten(2, 3)
        doc_BHGQT = (q_BGXd @ doc_k_BGTd.transpose(2, 3)).unflatten(2, (num_blocks, num_queries)).transpose(1, 2)
        own_RGQY = q_BHGQd.flatten(0, 1) @ own_k_RGYd.transpose(2, 3)
        own_BHGQY = own_RGQY.unflatten(0, (num_documents, num_blocks))
        scores = torch.cat((doc_BHGQT, own_BHGQY), dim=-1).unflatten(3, (-1, num_new))
        scores = scores.masked_fill(hidden_BH11NX, -torch.inf)
        probs_BHGQX = scores.softmax(-1, dtype=torch.float32).to(v.dtype).flatten(3, 4)
        doc_probs_BGXT = probs_BHGQX[..., :num_tokens].transpose(1, 2).flatten(2, 3)
        doc_BHGQd = (doc_probs_BGXT @ doc_v_BGTd).unflatten(2, (num_blocks, num_queries)).transpose(1, 2)
        own_RGQd = probs_BHGQX[..., num_tokens:].flatten(0, 1) @ own_v_RGYd
        return (doc_BHGQd.flatten(0, 1) + own_RGQd).reshape(q.shape)

    return attend
