"""Whether the disk has room for a training: what states and adapters of a rank take at most, against what is free."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.errors import TrainingError
from dgemma_engine.families.llama.adapter import AdapterTokens, factor_shapes
from dgemma_engine.families.llama.config import LlamaConfig
from dgemma_engine.repository_adapters.training_folder import TrainingFolder
from dgemma_engine.tools.tuning.training_config import SPARE_BYTES, adapter_bytes
from dgemma_engine.tools.tuning.tuned_base import TunedBase

# Factors, their average, those that are merged, and two moments of each, in float32; each with a header of its own.
_STATE_COPIES, _FLOAT_BYTES, _TENSOR_HEADER_BYTES = 5, 4, 1_024
# The new state beside the last; the adapter as it is trained, as it is written, on trial, and installed.
_STATES, _ADAPTERS = 2, 4
_MB = 1_000_000


def require_space(folder: TrainingFolder, base: TunedBase, rank: int) -> None:
    """Makes sure that a training can write all its files.

    Args:
        folder: must exist; what an earlier call left in it is overwritten.
        base: what is tuned.
        rank: of the adapter.

    Raises:
        TrainingError: too little is free; the message says how much is needed.
    """
    needed, free = disk_bytes(base, rank) - folder.num_bytes, folder.free_bytes
    if free < needed:
        raise TrainingError(
            f"{folder.path}: {needed / _MB:.0f} MB are needed there while it trains, and {free / _MB:.0f} MB are free; "
            "free some space, then start again"
        )


def disk_bytes(base: TunedBase, rank: int) -> int:
    """Returns what a training takes on the disk at most: states to go on from, and copies of the adapter."""
    tokens = AdapterTokens(end=base.merged.tokens.end, name=base.merged.tokens.name)
    shapes = [*factor_shapes(LlamaConfig.from_gguf(GgufFile(base.path)), rank, tokens).values()]
    return _STATES * state_bytes(shapes) + _ADAPTERS * adapter_bytes(shapes) + SPARE_BYTES


def state_bytes(shapes: Sequence[torch.Size]) -> int:
    """Returns the size of a saved state, headers at their largest.

    Args:
        shapes: of the factors.
    """
    return _STATE_COPIES * sum(_FLOAT_BYTES * shape.numel() + _TENSOR_HEADER_BYTES for shape in shapes)
