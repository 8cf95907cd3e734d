"""The two losses of one model: the slot's tokens, given both sides, and the next token, given what is before it.

Takes token tensors, returns scalars; knows nothing of optimisers or files. Shape legend: B rows, P prompt (padded on
the left), S slot, H suffix head (padded on the right), L = S + H, R canvases per row, X = B * R, T = P + S, D hidden,
N tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dgemma_engine.model.graph_kv import GraphKV
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.tools.training.data.batches import Batch
from dgemma_engine.tools.training.data.corruption import corrupted_canvases
from dgemma_engine.tools.training.data.training_masks import Layout, canvas_layout, encoder_layout
from dgemma_engine.tools.training.optimization.vocabulary import Vocabulary

# The sampler's temperatures, so that self-conditioning is trained on the same distributions.
_T_MIN, _T_MAX = 0.4, 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """A `Batch` on the model's device, its numbers as int64; see there for the fields."""

    prompt_BP: Tensor
    prompt_lengths_B: Tensor
    slot_BS: Tensor
    content_lengths_B: Tensor
    head_BH: Tensor
    head_lengths_B: Tensor
    given_BS: Tensor
    causal_N: Tensor

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> Self:
        """Returns `batch` on `device`."""
        return cls(
            prompt_BP=torch.from_numpy(batch.prompt_BP).to(device, torch.int64),
            prompt_lengths_B=torch.from_numpy(batch.prompt_lengths_B).to(device, torch.int64),
            slot_BS=torch.from_numpy(batch.slot_BS).to(device, torch.int64),
            content_lengths_B=torch.from_numpy(batch.content_lengths_B).to(device, torch.int64),
            head_BH=torch.from_numpy(batch.head_BH).to(device, torch.int64),
            head_lengths_B=torch.from_numpy(batch.head_lengths_B).to(device, torch.int64),
            given_BS=torch.from_numpy(batch.given_BS).to(device),
            causal_N=torch.from_numpy(batch.causal_N).to(device),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Mean cross-entropies in nats per token, scalars that carry gradients.

    Attributes:
        slot: over all slot positions that are not given, clean ones too, weighted by `slot_weights`.
        causal: of the next token, at the targets of the batch.
    """

    slot: Tensor
    causal: Tensor


def infilling_losses(
    model: DiffusionGemma,
    batch: TokenBatch,
    *,
    levels_BR: Tensor,
    num_judgements: int,
    generator: torch.Generator,
    vocabulary: Vocabulary,
) -> Losses:
    """Runs both modes of the model over a batch.

    The causal pass reads prompt and middle in one go; each canvas sees its prompt's keys and values, and is a row of
    its own: canvases side by side in one row would attend to each other only to have it masked.

    Args:
        model: with operations that allow gradients.
        batch: holes.
        levels_BR: noise level of each canvas, 0 to 1; the R canvases of a hole share one prompt pass.
        num_judgements: 1 judges the canvases as the engine's first step does; 2 judges them once more, self-conditioned
            on the distributions of a first judgement without gradient.
        generator: noise and temperature.
        vocabulary: cross-entropy and distribution; a compiled one is faster.
    """
    prompt_tokens, slot_size, num_canvases = batch.prompt_BP.shape[1], batch.slot_BS.shape[1], levels_BR.shape[1]
    window = model.config.sliding_window
    cache = GraphKV()
    ids_BT = torch.cat((batch.prompt_BP, batch.slot_BS), dim=1)
    layout = encoder_layout(batch.prompt_lengths_B, prompt_tokens, slot_size, window)
    hidden_BTD = model.encode(ids_BT, cache, positions_BT=layout.positions, attention_masks=layout.masks)
    causal = _causal_loss(model, hidden_BTD, ids_BT, batch, vocabulary)
    cache.truncate(prompt_tokens)
    cache.repeat(num_canvases)
    canvases_BRL = corrupted_canvases(
        batch.slot_BS, batch.given_BS, batch.head_BH, levels_BR, model.config.vocab_size, generator
    )
    layout = canvas_layout(
        batch.prompt_lengths_B,
        batch.head_lengths_B,
        prompt_tokens=prompt_tokens,
        slot_size=slot_size,
        head_tokens=batch.head_BH.shape[1],
        num_canvases=num_canvases,
        sliding_window=window,
    )
    canvas_XL = canvases_BRL.flatten(0, 1)
    soft_XLD: Tensor | None = None
    for _ in range(num_judgements - 1):
        soft_XLD = _self_conditioning(model, canvas_XL, soft_XLD, cache, layout, generator, vocabulary)
    hidden_XLD = model.decode(
        canvas_XL, cache, soft_BLD=soft_XLD, positions_BL=layout.positions, attention_masks=layout.masks
    )
    hidden_ND = hidden_XLD[:, :slot_size].flatten(0, 1)
    targets_N = batch.slot_BS.repeat_interleave(num_canvases, 0).flatten()
    weights_BS = slot_weights(batch.content_lengths_B, slot_size) * ~batch.given_BS
    weights_N = weights_BS.repeat_interleave(num_canvases, 0).flatten()
    return Losses(slot=vocabulary.loss(model, hidden_ND, targets_N, weights_N / weights_N.sum()), causal=causal)


def slot_weights(content_lengths_B: Tensor, slot_size: int) -> Tensor:
    """Returns the weight of each slot position [B, S], float32.

    The middle and the token that ends it count fully; all fills after the first share the weight of one token
    (arXiv 2602.01326), otherwise a large slot would mostly train fills.

    Args:
        content_lengths_B: content tokens of each slot.
        slot_size: S.
    """
    index_S = torch.arange(slot_size, device=content_lengths_B.device)
    content_BS = index_S[None] < content_lengths_B[:, None]
    shared_B1 = 1.0 / (slot_size - content_lengths_B).clamp(min=1).float()[:, None]
    return torch.where(content_BS, 1.0, shared_B1)


def _causal_loss(
    model: DiffusionGemma, hidden_BTD: Tensor, ids_BT: Tensor, batch: TokenBatch, vocabulary: Vocabulary
) -> Tensor:
    """Cross-entropy of the next token."""
    targets_N = ids_BT[:, 1:].flatten()[batch.causal_N]
    weights_N = torch.full(targets_N.shape, 1 / max(1, len(targets_N)), device=targets_N.device)
    return vocabulary.loss(model, hidden_BTD[:, :-1].flatten(0, 1)[batch.causal_N], targets_N, weights_N)


@torch.no_grad()
def _self_conditioning(
    model: DiffusionGemma,
    canvas_XL: Tensor,
    soft_XLD: Tensor | None,
    cache: GraphKV,
    layout: Layout,
    generator: torch.Generator,
    vocabulary: Vocabulary,
) -> Tensor:
    """Returns the self-conditioning signal a denoising step would hand to the next one; same rule at clamped tokens."""
    hidden_XLD = model.decode(
        canvas_XL, cache, soft_BLD=soft_XLD, positions_BL=layout.positions, attention_masks=layout.masks
    )
    temperature = _T_MIN + (_T_MAX - _T_MIN) * torch.rand((), generator=generator, device=canvas_XL.device)
    return vocabulary.soft_embeddings(model, hidden_XLD.flatten(0, 1), temperature).view_as(hidden_XLD)
