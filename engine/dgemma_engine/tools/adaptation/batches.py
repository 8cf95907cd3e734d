"""Samples as padded tensors: documents, the blocks that read them, and the suffix of each block.

Places are positions: a suffix stands directly before the reserved places end, where its document begins
(`model.kv_cache.PromptCache.beside_prompt`). Every document of a batch has as many rows of blocks, some of them empty.

Shape legend: B documents, T tokens of one, H blocks of one, N tokens of a block, S suffix tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Self

import torch
from torch import Tensor

from dgemma_engine.tools.adaptation.samples import Block, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleBatch:
    """Some samples on a device; ids and places are int64, padding is 0.

    Attributes:
        document_BT: tokens of the documents.
        document_positions_1T: their places.
        suffix_RS: suffix of each block, R = B * H rows, document by document.
        suffix_positions_RS: their places.
        num_suffix_R: real ones.
        input_RN: tokens of the blocks.
        input_positions_RN: their places.
        num_seen_R: tokens of its document that a block sees.
        target_RN: the tokens after those of the blocks.
        weight_RN: of each target in the loss, float32; 0 for padding.
        blocks: of each row; None for an empty one.
    """

    document_BT: Tensor
    document_positions_1T: Tensor
    suffix_RS: Tensor
    suffix_positions_RS: Tensor
    num_suffix_R: Tensor
    input_RN: Tensor
    input_positions_RN: Tensor
    num_seen_R: Tensor
    target_RN: Tensor
    weight_RN: Tensor
    blocks: tuple[Block | None, ...]

    @classmethod
    def of(cls, samples: Sequence[Sample], *, reserved: int, device: torch.device) -> Self:
        """Pads samples to the longest of them.

        Args:
            samples: at least one.
            reserved: places before each document; no suffix is longer.
            device: where the tensors live.
        """
        num_blocks = max(len(sample.blocks) for sample in samples)
        rows: list[Block | None] = []
        for sample in samples:
            rows += sample.blocks
            rows += [None] * (num_blocks - len(sample.blocks))
        starts = [block.start if block else 0 for block in rows]
        suffix_RS = _padded([block.suffix_ids if block else [] for block in rows])
        num_suffix_R = torch.tensor([len(block.suffix_ids) if block else 0 for block in rows])
        document_BT, input_RN = _padded([sample.ids for sample in samples]), _padded([_inputs(block) for block in rows])
        start_R1 = torch.tensor(starts)[:, None]
        tensors = {
            "document_BT": document_BT,
            "document_positions_1T": reserved + torch.arange(document_BT.shape[1])[None],
            "suffix_RS": suffix_RS,
            "suffix_positions_RS": reserved - num_suffix_R[:, None] + torch.arange(suffix_RS.shape[1]),
            "num_suffix_R": num_suffix_R,
            "input_RN": input_RN,
            "input_positions_RN": reserved + start_R1 + torch.arange(input_RN.shape[1]),
            "num_seen_R": start_R1[:, 0],
            "target_RN": _padded([block.target_ids if block else [] for block in rows]),
            "weight_RN": _padded([block.weights if block else [] for block in rows], torch.float32),
        }
        return cls(**{name: tensor.to(device) for name, tensor in tensors.items()}, blocks=tuple(rows))

    @property
    def num_holes(self) -> int:
        """Blocks that are not empty."""
        return sum(block is not None for block in self.blocks)


def _inputs(block: Block | None) -> list[int]:
    return block.input_ids if block else []


def _padded(rows: Sequence[Sequence[float]], dtype: torch.dtype = torch.int64) -> Tensor:
    """Returns rows of equal length, at least one column wide."""
    columns = list(zip_longest(*rows, fillvalue=0)) or [(0,) * len(rows)]
    return torch.tensor(columns, dtype=dtype).T.contiguous()
