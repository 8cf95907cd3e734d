"""Attention masks of prompts that are padded on the left, and of several canvases after one prompt.

Builds what `DiffusionGemma.encode` and `decode` take as `attention_masks`, and the positions that go with them; with no
padding and one canvas they equal the engine's own. Shape legend: B rows, P prompt (padded), S slot, T = P + S encoded
tokens, R canvases per row, L tokens of a canvas, H suffix head, W sliding window.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_engine.model.attention_masks import AttentionMasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Masks and positions of one pass.

    Attributes:
        masks: for both kinds of layer.
        positions: int64, [B, tokens].
    """

    masks: AttentionMasks
    positions: Tensor


def encoder_layout(prompt_lengths_B: Tensor, prompt_tokens: int, num_behind: int, sliding_window: int) -> Layout:
    """Layout of prompts padded on the left with `num_behind` tokens after them, all causal.

    Args:
        prompt_lengths_B: tokens of each prompt, int64.
        prompt_tokens: P.
        num_behind: S.
        sliding_window: W, the query's own token included.
    """
    index_T = torch.arange(prompt_tokens + num_behind, device=prompt_lengths_B.device)
    padding_B1 = (prompt_tokens - prompt_lengths_B)[:, None]
    query_T1, key_1T = index_T[:, None], index_T[None]
    causal_TT = key_1T <= query_T1
    real_B1T = (index_T[None] >= padding_B1)[:, None]
    # A padded query sees itself, so that its softmax is over something.
    full_BTT = (causal_TT & real_B1T) | (key_1T == query_T1)
    sliding_BTT = full_BTT & (key_1T > query_T1 - sliding_window)
    return Layout(
        masks=AttentionMasks(full=full_BTT[:, None], sliding=sliding_BTT[:, None]),
        positions=(index_T[None] - padding_B1).clamp(min=0),
    )


def canvas_layout(
    prompt_lengths_B: Tensor,
    head_lengths_B: Tensor,
    *,
    prompt_tokens: int,
    slot_size: int,
    head_tokens: int,
    num_canvases: int,
    sliding_window: int,
) -> Layout:
    """Layout of R canvases after each prompt, a row each: a canvas sees its prompt and itself.

    Args:
        prompt_lengths_B: tokens of each prompt, int64.
        head_lengths_B: clamped tokens of each row, int64; the rest of H is padding.
        prompt_tokens: P.
        slot_size: S.
        head_tokens: H.
        num_canvases: R.
        sliding_window: W; sliding layers see the prompt's last W - 1 tokens.
    """
    device = prompt_lengths_B.device
    prompt_lengths_X = prompt_lengths_B.repeat_interleave(num_canvases)
    offset_L = torch.arange(slot_size + head_tokens, device=device)
    real_XL = offset_L[None] < slot_size + head_lengths_B.repeat_interleave(num_canvases)[:, None]
    index_P = torch.arange(prompt_tokens, device=device)
    prompt_XP = index_P[None] >= (prompt_tokens - prompt_lengths_X)[:, None]
    visible = min(prompt_tokens, sliding_window - 1)
    return Layout(
        masks=AttentionMasks(
            full=torch.cat((prompt_XP, real_XL), dim=-1)[:, None, None],
            sliding=torch.cat((prompt_XP[:, prompt_tokens - visible :], real_XL), dim=-1)[:, None, None],
        ),
        positions=prompt_lengths_X[:, None] + offset_L,
    )
