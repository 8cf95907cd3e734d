"""Factors to the file of 8 bits that the engine reads: a scale for each row, and where they come from.

Read by `families.llama.adapter`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from dgemma_engine.durable_files import put_in_place
from dgemma_engine.families.llama.adapter import SCALE, AdapterTokens, Stage
from dgemma_engine.tools.adaptation.factors import Factors
from dgemma_engine.tools.training.checkpoint import unwritable

# Divides rows whose scale rounds to 0: they are read as zeros.
_LEAST_SCALE = 1e-8


def write_adapter(
    factors: Factors,
    folder: Path,
    *,
    stage: Stage,
    base_sha256: str,
    tokens: AdapterTokens,
    provenance: Mapping[str, Any],
) -> Path:
    """Writes `folder/STAGE.safetensors` atomically; returns its path.

    Args:
        factors: matrices are rounded to 8 bits, row by row, vectors to 16.
        folder: must exist.
        stage: what they were trained for.
        base_sha256: of the file that they were trained on.
        tokens: the marks they were trained with.
        provenance: JSON-ready; how they were made.

    Raises:
        TrainingError: the disk is full or the folder cannot be written; a file that was there is untouched.
    """
    stored = dict[str, Tensor]()
    for name, tensor in factors.items():
        values = tensor.detach().cpu()
        if values.ndim == 1:
            # The embedding of a mark: a scale for each of its values would be larger than they are.
            stored[name] = values.half()
        else:
            stored[name], stored[f"{name}{SCALE}"] = _rounded(values)
    rank = next(tensor.shape[0] for name, tensor in factors.items() if name.endswith(".a"))
    marks = {name: mark for name, mark in asdict(tokens).items() if mark is not None}
    metadata = {
        "base_sha256": base_sha256,
        "stage": stage,
        "rank": str(rank),
        "tokens": json.dumps(marks),
        "provenance": json.dumps(dict(provenance)),
    }
    path = folder / f"{stage}.safetensors"
    unfinished = folder / f".{path.name}.part"
    try:
        unfinished.write_bytes(save(stored, metadata))
        put_in_place(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise unwritable(path, error) from error
    return path


def _rounded(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a matrix in 8 bits and the scale of each row, float16: what is read is the product of the two."""
    # The scale is rounded first, so that the rounding to 8 bits makes up for it.
    scale = (tensor.abs().amax(1) / 127).half()
    values = tensor / scale.float().clamp(min=_LEAST_SCALE)[:, None]
    return values.round().clamp(-127, 127).to(torch.int8).contiguous(), scale.contiguous()
