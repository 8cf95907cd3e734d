"""Stored tensors to the parameters of a decoder: one at a time straight into the model.

A file that holds what the model would leave unread is refused: it would not be the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from dgemma_engine.checkpoint.safetensors_reader import CheckpointReader
from dgemma_engine.errors import CheckpointError
from dgemma_engine.families.llama.decoder import Decoder
from dgemma_engine.families.tensor_names import TensorNames

# Derived values that old checkpoints hold.
_UNREAD = ("rotary_emb.inv_freq",)


class StoredTensors(Protocol):
    """The tensors of a checkpoint under the names of one layout."""

    place: Path
    names: frozenset[str]

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """Returns a tensor that is there, cast to `dtype`."""
        ...


class FolderTensors:
    """`StoredTensors` of a folder of safetensors.

    Args:
        folder: of the model.

    Raises:
        CheckpointError: a file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.place = folder
        self._reader = CheckpointReader(folder)
        self.names = frozenset(self._reader)

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """See `StoredTensors.read`."""
        return self._reader.tensor(name).to(dtype)


def read_parameters(
    model: Decoder,
    tensors: StoredTensors,
    names: TensorNames,
    *,
    kind: str,
    device: torch.device,
    dtype: torch.dtype,
    report: Callable[[int], None],
) -> None:
    """Gives a model its weights, and makes it one in inference mode, without gradients.

    Args:
        model: made on the device `meta`.
        tensors: its weights.
        names: of the tensors.
        kind: what the model is, for a message about a tensor that it lacks.
        device: where its weights go.
        dtype: what they are cast to.
        report: called with the percentage read so far.

    Raises:
        CheckpointError: a tensor is missing, has another shape, or would be left unread; the message names it.
    """
    # Not `to_empty`, for which torch imports a third of a second of symbolic algebra.
    targets = {
        name: torch.empty(parameter.shape, dtype=dtype, device=device) for name, parameter in model.named_parameters()
    }
    model.load_state_dict(targets, assign=True)
    keys_of = {name: names.keys(name) for name in targets}
    unread = tensors.names - {key for keys in keys_of.values() for key in keys}
    if unread := sorted(name for name in unread if not name.endswith(_UNREAD)):
        raise CheckpointError(f"{tensors.place}: holds {unread[0]}, which {kind} does not have; choose another model")
    for number, (parameter, target) in enumerate(targets.items()):
        _fill(target, tensors, keys_of[parameter])
        report(100 * (number + 1) // len(targets))
    model.eval().requires_grad_(requires_grad=False)


def _fill(target: Tensor, tensors: StoredTensors, keys: list[str]) -> None:
    start = 0
    for key in keys:
        if key not in tensors.names:
            raise CheckpointError(f"{tensors.place}: lacks {key}; get the whole model again")
        tensor = tensors.read(key, target.dtype)
        rows = target[start : start + len(tensor)]
        start += len(tensor)
        if rows.shape != tensor.shape or (key == keys[-1] and start != len(target)):
            shape = list(tensor.shape)
            raise CheckpointError(f"{tensors.place}: {key} has shape {shape}, against its configuration; get it again")
        rows.copy_(tensor)
