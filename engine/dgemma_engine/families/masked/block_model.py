"""A decoder that attends block by block in plain PyTorch as a `DiffusionModel`: keys and values of whole blocks stay.

Blocks are counted from the beginning of the text. A token sees its own block on both sides and every earlier one, so
once a block is whole, its states depend on its own and earlier tokens only: keys and values of whole blocks are exact
for every canvas. The tokens of an unfinished last block of the prompt are run again with each row of a canvas, which
continues that block; their cached keys and values are masked. There is no causal mode.
Knows tensors and token ids; knows nothing of files, sampling, holes or text.

Shape legend: B rows of the batch (1), T prompt tokens, L canvas positions, X tokens of a canvas pass, P cached tokens,
D hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_engine.families.llama.decoder import Decoder
from dgemma_engine.families.llama.layers import Attend
from dgemma_engine.families.masked.config import MaskedConfig
from dgemma_engine.model.attention_masks import ALL_VISIBLE, AttentionMasks
from dgemma_engine.model.kv_cache import KVCache, prompt_cache
from dgemma_engine.model.ops import Ops


class BlockModel(Decoder):
    """The model; implements `DiffusionModel`.

    Args:
        config: dimensions, of blocks of at least one token, whose states are not shifted.
        ops: the operations it calls.
        has_head: whether the output matrix is one of its own, `lm_head`, and not the embedding.
    """

    has_causal_mode: bool = False

    def __init__(self, config: MaskedConfig, ops: Ops, *, has_head: bool = False) -> None:
        super().__init__(config, ops, has_head=has_head)
        assert config.block_tokens and not config.is_shifted
        self._block_tokens = config.block_tokens

    def encode(
        self,
        ids_BT: Tensor,
        cache: KVCache,
        *,
        positions_BT: Tensor | None = None,
        attention_masks: AttentionMasks | None = None,
    ) -> Tensor:
        """See `DiffusionModel.encode`; there is no causal mode."""
        raise AssertionError("this model has no causal mode")

    def prefill(self, ids_BT: Tensor, cache: KVCache) -> None:
        """See `DiffusionModel.prefill`; a block that was begun is computed again, whole or as far as it goes."""
        begun_1T = self._begun(cache)
        ids_BT = torch.cat((begun_1T, ids_BT), dim=1)
        start = cache.length - begun_1T.shape[1]
        prompt_cache(cache).truncate(start)
        end = start + ids_BT.shape[1]
        position_S = torch.arange(end, device=self.device)
        block_S = position_S // self._block_tokens
        mask = (block_S[None, :] <= block_S[start:, None])[None, None]

        def attend(layer_idx: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return self._ops.attention(q, *cache.append(layer_idx, k, v), mask)

        self._run(ids_BT, position_S[None, start:], attend)
        cache.remember(ids_BT)
        cache.advance(ids_BT.shape[1])

    def decode(
        self,
        canvas_BL: Tensor,
        cache: KVCache,
        *,
        soft_BLD: Tensor | None = None,
        positions_BL: Tensor | None = None,
        attention_masks: AttentionMasks = ALL_VISIBLE,
    ) -> Tensor:
        """See `DiffusionModel.decode`; of the masks only `rows` is read, and each row's positions follow the prompt."""
        assert soft_BLD is None, "this family has no self-conditioning"
        rows = attention_masks.rows
        assert rows is not None or attention_masks.full is None, "masks of a canvas are those of packed rows"
        row_L = torch.zeros_like(canvas_BL[0]) if rows is None else rows.row_L
        begun_1T, device = self._begun(cache), canvas_BL.device
        num_begun, num_past = begun_1T.shape[1], cache.length
        ids, positions, row_X, scored = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
        places, num_before = list[Tensor](), 0
        for row in row_L.unique().tolist():
            place_L = (row_L == row).nonzero()[:, 0]
            length = num_begun + len(place_L)
            ids += [begun_1T, canvas_BL[:, place_L]]
            positions.append(torch.arange(length, device=device) + (num_past - num_begun))
            row_X.append(torch.full_like(positions[-1], row))
            scored.append(torch.arange(num_before + num_begun, num_before + length, device=device))
            places.append(place_L)
            num_before += length
        position_X = torch.cat(positions)
        mask = self._canvas_mask(position_X, torch.cat(row_X), num_whole=num_past - num_begun, num_past=num_past)

        def attend(layer_idx: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return self._ops.attention(q, *cache.with_canvas(layer_idx, k, v, num_past), mask)

        x_1XD = self._run(torch.cat(ids, dim=1), position_X[None], attend)
        hidden_BLD = x_1XD.new_empty(1, canvas_BL.shape[1], x_1XD.shape[-1])
        hidden_BLD[:, torch.cat(places)] = x_1XD[:, torch.cat(scored)]
        return self.norm(hidden_BLD)

    def _begun(self, cache: KVCache) -> Tensor:
        """Returns the prompt's tokens in the block that it ends in, [1, fewer than a block]; none after a whole one."""
        num_begun = cache.length % self._block_tokens
        if not num_begun:
            return torch.empty(1, 0, dtype=torch.int64, device=self.device)
        return cache.ids()[:, -num_begun:].clone()

    def _canvas_mask(self, position_X: Tensor, row_X: Tensor, *, num_whole: int, num_past: int) -> Tensor:
        """Returns what the tokens of a pass see: the cache's whole blocks, and of their own row, [1, 1, X, P + X]."""
        block_X = position_X // self._block_tokens
        own_XX = (row_X[:, None] == row_X[None, :]) & (block_X[None, :] <= block_X[:, None])
        whole_P = torch.arange(num_past, device=row_X.device) < num_whole
        return torch.cat((whole_P.expand(len(row_X), -1), own_XX), dim=1)[None, None]

    def _run(self, ids_1X: Tensor, positions_1X: Tensor, attend: Attend) -> Tensor:
        """Returns the states after the last layer, [1, X, D]."""
        rotary, x_1XD = self.rotary_of(positions_1X), self.embed(ids_1X)
        for layer in self.layers:
            x_1XD = layer(x_1XD, rotary, attend)
        return x_1XD
