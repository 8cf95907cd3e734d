"""The two losses of one model: what stands in the slot, seen from both sides, and the next token, seen from the left.

Takes token tensors, returns scalars; knows nothing of optimisers or files. Shape legend: B rows, P prompt (padded on
the left), S slot, H suffix head (padded on the right), L = S + H, R canvases per row, T = P + S, D hidden,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from dgemma_engine.cache import GraphKV
from dgemma_engine.model import DiffusionGemma
from dgemma_engine.training import bpe
from dgemma_engine.training.batches import Batch
from dgemma_engine.training.corruption import corrupted_canvases
from dgemma_engine.training.training_masks import Layout, canvas_layout, encoder_layout

# The sampler's temperatures: self-conditioning in training sees what it will see there.
_T_MIN, _T_MAX = 0.4, 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """A `Batch` as int64 tensors on the model's device; see there for the fields."""

    prompt_BP: Tensor
    prompt_lengths_B: Tensor
    slot_BS: Tensor
    content_lengths_B: Tensor
    head_BH: Tensor
    head_lengths_B: Tensor

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
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Mean cross-entropies in nats per token, scalars that carry gradients.

    Attributes:
        slot: over all slot positions, clean ones too, weighted by `slot_weights`.
        causal: of the next token in the prompt, and of the middle behind it.
    """

    slot: Tensor
    causal: Tensor


def token_losses(model: DiffusionGemma, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
    """Returns the cross-entropy of each token in nats, [N], float32.

    Args:
        model: its vocabulary.
        hidden_ND: normalised hidden states.
        targets_N: the right tokens.
    """
    return F.cross_entropy(model.logits(hidden_ND), targets_N, reduction="none")


TokenLosses: TypeAlias = Callable[[DiffusionGemma, Tensor, Tensor], Tensor]


def infilling_losses(
    model: DiffusionGemma,
    batch: TokenBatch,
    *,
    levels_BR: Tensor,
    num_judgements: int,
    generator: torch.Generator,
    token_losses: TokenLosses = token_losses,
) -> Losses:
    """Runs both modes of the model over a batch.

    The causal pass reads prompt and middle in one go; the canvases see the prompt's keys and values only.

    Args:
        model: with operations that allow gradients.
        batch: holes.
        levels_BR: noise level of each canvas, 0 to 1; the R canvases of a hole share one prompt pass.
        num_judgements: 1 judges the canvases as the engine's first step does; 2 judges them once more with what the
            first judgement, made without gradient, believed.
        generator: noise and temperature.
        token_losses: cross-entropy per token; a compiled one is faster.
    """
    prompt_tokens, slot_size, num_canvases = batch.prompt_BP.shape[1], batch.slot_BS.shape[1], levels_BR.shape[1]
    window = model.config.sliding_window
    cache = GraphKV()
    ids_BT = torch.cat((batch.prompt_BP, batch.slot_BS), dim=1)
    layout = encoder_layout(batch.prompt_lengths_B, prompt_tokens, slot_size, window)
    hidden_BTD = model.encode(ids_BT, cache, positions_BT=layout.positions, attention_masks=layout.masks)
    causal = _causal_loss(model, hidden_BTD, ids_BT, batch, token_losses)
    cache.truncate(prompt_tokens)
    canvases_BRL = corrupted_canvases(batch.slot_BS, batch.head_BH, levels_BR, model.config.vocab_size, generator)
    layout = canvas_layout(
        batch.prompt_lengths_B,
        batch.head_lengths_B,
        prompt_tokens=prompt_tokens,
        slot_size=slot_size,
        head_tokens=batch.head_BH.shape[1],
        num_canvases=num_canvases,
        sliding_window=window,
    )
    canvas_BL = canvases_BRL.flatten(1)
    soft_BLD: Tensor | None = None
    for _ in range(num_judgements - 1):
        soft_BLD = _belief(model, canvas_BL, soft_BLD, cache, layout, generator)
    hidden_BLD = model.decode(
        canvas_BL, cache, soft_BLD=soft_BLD, positions_BL=layout.positions, attention_masks=layout.masks
    )
    hidden_BRSD = hidden_BLD.unflatten(1, (num_canvases, -1))[:, :, :slot_size]
    targets_BRS = batch.slot_BS[:, None].expand(-1, num_canvases, -1)
    weights_BRS = slot_weights(batch.content_lengths_B, slot_size)[:, None].expand_as(targets_BRS)
    losses_N = token_losses(model, hidden_BRSD.reshape(-1, hidden_BRSD.shape[-1]), targets_BRS.reshape(-1))
    weights_N = weights_BRS.reshape(-1)
    return Losses(slot=(losses_N * weights_N).sum() / weights_N.sum(), causal=causal)


def slot_weights(content_lengths_B: Tensor, slot_size: int) -> Tensor:
    """Returns the weight of each slot position [B, S], float32.

    The middle and the token that ends it count fully; all fills behind the first share the weight of one token
    (arXiv 2602.01326), or a large slot would mostly teach to write fills.

    Args:
        content_lengths_B: tokens that say something.
        slot_size: S.
    """
    index_S = torch.arange(slot_size, device=content_lengths_B.device)
    content_BS = index_S[None] < content_lengths_B[:, None]
    shared_B1 = 1.0 / (slot_size - content_lengths_B).clamp(min=1).float()[:, None]
    return torch.where(content_BS, 1.0, shared_B1)


def _causal_loss(
    model: DiffusionGemma, hidden_BTD: Tensor, ids_BT: Tensor, batch: TokenBatch, token_losses: TokenLosses
) -> Tensor:
    """Cross-entropy of the next token; markers between the parts of a prompt and padding are no targets."""
    prompt_tokens = batch.prompt_BP.shape[1]
    targets_BT = ids_BT[:, 1:]
    index_T = torch.arange(1, ids_BT.shape[1], device=ids_BT.device)[None]
    in_middle_BT = (index_T >= prompt_tokens) & (index_T < prompt_tokens + batch.content_lengths_B[:, None])
    in_prompt_BT = (index_T < prompt_tokens) & (targets_BT >= len(bpe.SPECIAL_TOKENS))
    wanted_BT = in_prompt_BT | (in_middle_BT & (targets_BT != bpe.MORE))
    return token_losses(model, hidden_BTD[:, :-1][wanted_BT], targets_BT[wanted_BT]).mean()


@torch.no_grad()
def _belief(
    model: DiffusionGemma,
    canvas_BL: Tensor,
    soft_BLD: Tensor | None,
    cache: GraphKV,
    layout: Layout,
    generator: torch.Generator,
) -> Tensor:
    """Returns the self-conditioning signal a denoising step would hand to the next one; same rule at clamped tokens."""
    hidden_BLD = model.decode(
        canvas_BL, cache, soft_BLD=soft_BLD, positions_BL=layout.positions, attention_masks=layout.masks
    )
    temperature = _T_MIN + (_T_MAX - _T_MIN) * torch.rand((), generator=generator, device=canvas_BL.device)
    return model.soft_embeddings(torch.softmax(model.logits(hidden_BLD) / temperature, dim=-1))
