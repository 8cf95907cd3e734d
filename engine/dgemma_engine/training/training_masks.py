"""Who may look at whom when prompts are padded on the left and several canvases stand side by side behind one prompt.

Builds what `model.encode` and `model.decode` take as `attention_masks`, and the positions that go with them; with no
padding and one canvas they equal the engine's own. Shape legend: B rows, P prompt (padded), S slot, T = P + S encoded
tokens, R canvases per row, L tokens of a canvas, H suffix head, W sliding window.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_engine.masks import AttentionMasks


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
    """Layout of prompts padded on the left with `num_behind` tokens behind them, all causal.

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
    """Layout of R canvases packed behind each prompt: a canvas sees the prompt and itself, never its neighbours.

    Args:
        prompt_lengths_B: tokens of each prompt, int64.
        head_lengths_B: clamped tokens of each row, int64; the rest of H is padding.
        prompt_tokens: P.
        slot_size: S.
        head_tokens: H.
        num_canvases: R.
        sliding_window: W; sliding layers see the prompt's last W - 1 tokens.
    """
    device, num_rows = prompt_lengths_B.device, prompt_lengths_B.shape[0]
    length = slot_size + head_tokens
    offset_L = torch.arange(length, device=device)
    real_BL = offset_L[None] < slot_size + head_lengths_B[:, None]
    block_R = torch.arange(num_canvases, device=device).repeat_interleave(length)
    same_QK = block_R[:, None] == block_R[None]
    canvas_BQK = same_QK & real_BL.repeat(1, num_canvases)[:, None]
    index_P = torch.arange(prompt_tokens, device=device)
    prompt_BP = index_P[None] >= (prompt_tokens - prompt_lengths_B)[:, None]
    prompt_BQP = prompt_BP[:, None].expand(num_rows, num_canvases * length, prompt_tokens)
    visible = min(prompt_tokens, sliding_window - 1)
    return Layout(
        masks=AttentionMasks(
            full=torch.cat((prompt_BQP, canvas_BQK), dim=-1)[:, None],
            sliding=torch.cat((prompt_BQP[..., prompt_tokens - visible :], canvas_BQK), dim=-1)[:, None],
        ),
        positions=(prompt_lengths_B[:, None] + offset_L).repeat(1, num_canvases),
    )
