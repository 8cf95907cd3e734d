"""How a repository is learnt: the configuration of its training, and the rank that fits the store."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.errors import TrainingError
from dgemma_engine.families.llama.adapter import Adapter, factor_shapes
from dgemma_engine.families.llama.config import LlamaConfig
from dgemma_engine.repository_adapters.store import MAX_BYTES
from dgemma_engine.tools.adaptation.config import AdaptConfig, EvaluationConfig, OptimizerConfig
from dgemma_engine.tools.training.optimization.schedule import Schedule

RANKS = (16, 8, 4)
"""From the best to the smallest."""

SPARE_BYTES = 2**20
"""For the header of an adapter's file, and what is small beside it: a calibration, results of holes."""

_SCALE_BYTES = 2


def tune_config(*, rank: int, seed: int) -> AdaptConfig:
    """Returns how a repository is learnt: short runs, so a smaller adapter, a longer cooldown and a shorter average.

    Args:
        rank: of the adapter.
        seed: of the samples.
    """
    return AdaptConfig(
        rank=rank,
        seed=seed,
        optimizer=OptimizerConfig(rate=1e-3, average_decay=0.97),
        schedule=Schedule(warmup_steps=10, cooldown_share=0.4, floor=0.03),
        evaluation=EvaluationConfig(documents=4, holes=10),
        save_s=60.0,
        # Held-out holes decide, asked through the engine; losses on them are measured at both ends only.
        evaluate_s=math.inf,
    )


def fitting_rank(base: Path, merged: Adapter) -> int:
    """Returns the best rank whose adapter, in 8 bits, the store takes.

    Args:
        base: GGUF file of a Llama.
        merged: its adapter.

    Raises:
        TrainingError: the base is too large for the least rank.
    """
    config = LlamaConfig.from_gguf(GgufFile(base))
    for rank in RANKS:
        if adapter_bytes([*factor_shapes(config, rank, merged.tokens).values()]) <= MAX_BYTES - SPARE_BYTES:
            return rank
    raise TrainingError(
        f"{base.name}: its adapter would have more than {MAX_BYTES // 2**20} MiB; choose a smaller --model"
    )


def adapter_bytes(shapes: Sequence[torch.Size]) -> int:
    """Returns the size of an adapter in 8 bits, a scale for each row, without its header.

    Args:
        shapes: of the factors.
    """
    return sum(shape.numel() + _SCALE_BYTES * shape[0] for shape in shapes)
