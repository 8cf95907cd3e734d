"""Samples as padded tensors: documents, the blocks that read them, and the suffix of each block.

Places are positions: a suffix stands directly before the reserved places end, where its document begins
(`model.kv_cache.PromptCache.beside_prompt`). Every document of a batch has as many rows of blocks, some of them empty.

Shape legend: B documents, T tokens of one, H blocks of one, N tokens of a block, U different suffixes, S their tokens.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
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
        suffix_US: the suffixes.
        suffix_positions_US: their places.
        suffix_R: which of them each block reads, R = B * H rows, document by document, the shortest block first.
        num_suffix_R: its real tokens.
        input_RN: tokens of the blocks.
        input_positions_RN: their places.
        num_seen_R: tokens of its document that a block sees.
        target_RN: the tokens after those of the blocks.
        weight_RN: of each target in the loss, float32; 0 for padding.
        blocks: of each row; None for an empty one.
    """

    document_BT: Tensor
    document_positions_1T: Tensor
    suffix_US: Tensor
    suffix_positions_US: Tensor
    suffix_R: Tensor
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
            rows += sorted(sample.blocks, key=lambda block: len(block.input_ids))
            rows += [None] * (num_blocks - len(sample.blocks))
        starts = [block.start if block else 0 for block in rows]
        suffixes = [tuple(block.suffix_ids) if block else () for block in rows]
        number_of = {suffix: number for number, suffix in enumerate(dict.fromkeys(suffixes))}
        suffix_US, num_suffix_U1 = _padded([*number_of]), torch.tensor([[len(suffix)] for suffix in number_of])
        document_BT, input_RN = _padded([sample.ids for sample in samples]), _padded([_inputs(block) for block in rows])
        start_R1 = torch.tensor(starts)[:, None]
        tensors = {
            "document_BT": document_BT,
            "document_positions_1T": reserved + torch.arange(document_BT.shape[1])[None],
            "suffix_US": suffix_US,
            "suffix_positions_US": reserved - num_suffix_U1 + torch.arange(suffix_US.shape[1]),
            "suffix_R": torch.tensor([number_of[suffix] for suffix in suffixes]),
            "num_suffix_R": torch.tensor([len(suffix) for suffix in suffixes]),
            "input_RN": input_RN,
            "input_positions_RN": reserved + start_R1 + torch.arange(input_RN.shape[1]),
            "num_seen_R": start_R1[:, 0],
            "target_RN": _padded([block.target_ids if block else [] for block in rows]),
            "weight_RN": _padded([block.weights if block else [] for block in rows], torch.float32),
        }
        return cls(**{name: tensor.to(device) for name, tensor in tensors.items()}, blocks=tuple(rows))

    def parts(self, most: int) -> Generator[SampleBatch]:
        """Yields batches of equally many blocks of each document, without the padding that only longer ones need.

        Args:
            most: parts; documents and suffixes are those of the whole.
        """
        num_documents = len(self.document_BT)
        num_blocks = len(self.blocks) // num_documents
        size = -(-num_blocks // most)
        for start in range(0, num_blocks, size):
            rows = [
                document * num_blocks + block
                for document in range(num_documents)
                for block in range(start, min(start + size, num_blocks))
            ]
            blocks = tuple(self.blocks[row] for row in rows)
            if num_tokens := max(len(_inputs(block)) for block in blocks):
                yield replace(
                    self,
                    suffix_R=self.suffix_R[rows],
                    num_suffix_R=self.num_suffix_R[rows],
                    input_RN=self.input_RN[rows, :num_tokens],
                    input_positions_RN=self.input_positions_RN[rows, :num_tokens],
                    num_seen_R=self.num_seen_R[rows],
                    target_RN=self.target_RN[rows, :num_tokens],
                    weight_RN=self.weight_RN[rows, :num_tokens],
                    blocks=blocks,
                )

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
