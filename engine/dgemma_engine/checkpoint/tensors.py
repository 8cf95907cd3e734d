"""A model folder read parameter by parameter, plain or quantised, whatever keys and shards it is spread over.

Refuses a folder whose decoder holds keys that the model would leave unread: it would not be the checkpoint. Vision
weights, the encoder's copies of tied weights and a tied `lm_head` are no parameters here.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import torch
from torch import Tensor

from dgemma_engine.checkpoint.key_map import DECODER, ParameterSource, TensorKind, parameter_sources
from dgemma_engine.checkpoint.quantization_scheme import StoredScheme
from dgemma_engine.checkpoint.quantized_layouts import (
    IGNORED_SUFFIXES,
    SCALE_SUFFIXES,
    SUFFIXES,
    is_quantised,
    layout_of,
    read_matrix,
)
from dgemma_engine.checkpoint.safetensors_reader import CheckpointReader
from dgemma_engine.checkpoint.tensor_files import Staging
from dgemma_engine.errors import CheckpointError
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.quantization.block_layers import BlockMatrix
from dgemma_engine.quantization.quantized_tensor import QuantisedTensor

PackedParameter = QuantisedTensor | tuple[BlockMatrix, ...]
"""A parameter as it is stored: one tensor, or matrices one below the other."""

_HEAD = "lm_head.weight"
# Rows of the output matrix that are compared at once.
_HEAD_ROWS = 8_192
_FLOATS = ("BF16", "F16", "F32")
_QUANTISED = (*SCALE_SUFFIXES, *IGNORED_SUFFIXES, "weight_zero_point", "weight_g_idx", "qweight", "scales")


class StoredWeights(Protocol):
    """The parameters of a checkpoint; a context manager.

    Attributes:
        sources: of all parameters.
    """

    sources: tuple[ParameterSource, ...]

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def require_device(self, device_type: str) -> None:
        """Refuses a device, `cpu` or `cuda`, that cannot run the weights as they are stored.

        Raises:
            CheckpointError: see above.
        """
        ...

    def can_stay_packed(self, source: ParameterSource) -> bool:
        """Whether all of a parameter is quantised, and in one way."""
        ...

    def packed_bytes(self, source: ParameterSource) -> int | None:
        """Returns the bytes of a parameter as it is stored; None for one that is, or would be, expanded to floats."""
        ...

    def packed(self, source: ParameterSource, shape: torch.Size) -> PackedParameter:
        """Returns a parameter that can stay packed.

        Args:
            source: of the parameter.
            shape: by the configuration.

        Raises:
            CheckpointError: names what is missing, damaged or of a wrong shape.
        """
        ...

    def fill(self, target: Tensor, source: ParameterSource) -> None:
        """Writes a parameter, expanded if it is quantised, into `target`.

        Raises:
            CheckpointError: names what is missing, damaged, or of a wrong type or shape.
        """
        ...


class CheckpointWeights:
    """The parameters of one folder; a context manager. Implements `StoredWeights`.

    Args:
        folder: holds `config.json` and the weights.
        config: of the model in it.
        staging: see `CheckpointReader`.

    Raises:
        CheckpointError: names the file or key that is missing, damaged, not known or of an unsupported quantisation.
    """

    def __init__(self, folder: Path, config: ModelConfig, *, staging: Staging | None = None) -> None:
        self.scheme = StoredScheme.load(folder)
        self.reader = CheckpointReader(folder, staging=staging)
        self.sources = tuple(parameter_sources(config))
        self._known = self._known_keys()
        self._refuse_foreign_keys()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reader.release()

    def require_device(self, device_type: str) -> None:
        """See `StoredWeights.require_device`; accepts all: the formats are checked once the weights are loaded."""

    def can_stay_packed(self, source: ParameterSource) -> bool:
        """See `StoredWeights.can_stay_packed`."""
        if not self._reads_matrices(source) or not all(is_quantised(self.reader, name) for name in source.matrices):
            return False
        return len({layout_of(self.reader, name) for name in source.matrices}) == 1

    def packed_bytes(self, source: ParameterSource) -> int | None:
        """See `StoredWeights.packed_bytes`."""
        if not self.can_stay_packed(source):
            return None
        keys = [f"{name}.{suffix}" for name in source.matrices for suffix in SUFFIXES]
        return sum(self.reader.header(key).num_bytes for key in keys if key in self.reader)

    def packed(self, source: ParameterSource, shape: torch.Size) -> QuantisedTensor:
        """See `StoredWeights.packed`."""
        pairs = zip(source.matrices, source.matrix_rows, strict=True)
        whole = QuantisedTensor.concatenate([self._matrix(name, (rows, shape[-1])) for name, rows in pairs])
        return whole.unflatten_rows(shape[0]) if len(shape) == 3 else whole

    def fill(self, target: Tensor, source: ParameterSource) -> None:
        """See `StoredWeights.fill`."""
        if source.kind is TensorKind.EMBEDDING:
            self._require_tied_head(source)
        if not self._reads_matrices(source):
            for key, part in zip(source.keys, target.split(list(source.rows)), strict=True):
                self._fill_plain(part, key)
            return
        parts = target.flatten(0, -2).split(list(source.matrix_rows))
        for name, part in zip(source.matrices, parts, strict=True):
            if is_quantised(self.reader, name):
                matrix = self._matrix(name, (part.shape[0], part.shape[1]))
                part.copy_(matrix.to(target.device).dequantise(target.dtype))
            else:
                self._fill_plain(part, f"{name}.weight")

    def require_plain(self, key: str, shape: tuple[int, ...]) -> None:
        """Refuses a key that is not here as floats of a shape.

        Raises:
            CheckpointError: names the key that is missing, or of a wrong type or shape.
        """
        if key not in self.reader:
            raise CheckpointError(f"{key}: missing from the weights; download the whole model folder again")
        found = self.reader.header(key)
        if found.dtype not in _FLOATS:
            raise CheckpointError(f"{key}: stored as {found.dtype}, only {', '.join(_FLOATS)} can be loaded")
        if found.shape != shape:
            raise CheckpointError(
                f"{key}: shape {list(found.shape)} in the weights, {list(shape)} by config.json; "
                "the two do not belong together"
            )

    def reads(self, key: str) -> bool:
        """Whether a key belongs to a parameter."""
        return key in self._known

    def _require_tied_head(self, source: ParameterSource) -> None:
        """Refuses an output matrix that differs from the embedding: the model would compute something else."""
        (embedding,), (num_rows,) = source.keys, source.rows
        if _HEAD not in self.reader:
            return
        pieces = [slice(start, start + _HEAD_ROWS) for start in range(0, num_rows, _HEAD_ROWS)]
        same_shape = self.reader.header(_HEAD).shape == self.reader.header(embedding).shape
        if not same_shape or not all(
            torch.equal(self.reader.tensor(_HEAD, rows), self.reader.tensor(embedding, rows)) for rows in pieces
        ):
            raise CheckpointError(
                f"{_HEAD}: is an output matrix of its own in the weights, and the embedding by config.json "
                "(tie_word_embeddings); the two do not belong together"
            )

    def _reads_matrices(self, source: ParameterSource) -> bool:
        """Whether a parameter is here matrix by matrix: a quantised folder's experts may still be one plain stack."""
        if self.scheme is None or not source.matrices:
            return False
        return source.kind is not TensorKind.EXPERTS or source.keys[0] not in self.reader

    def _matrix(self, name: str, shape: tuple[int, int]) -> QuantisedTensor:
        assert self.scheme is not None
        return read_matrix(self.reader, name, shape, self.scheme)

    def _fill_plain(self, target: Tensor, key: str) -> None:
        self.require_plain(key, tuple(target.shape))
        self.reader.fill(target, key)

    def _known_keys(self) -> set[str]:
        known = {key for source in self.sources for key in source.keys}
        if self.scheme is not None:
            endings = (*SUFFIXES, *IGNORED_SUFFIXES)
            known |= {f"{name}.{end}" for source in self.sources for name in source.matrices for end in endings}
        return known

    def _refuse_foreign_keys(self) -> None:
        foreign = sorted(key for key in self.reader if key.startswith(DECODER) and key not in self._known)
        if not foreign:
            return
        for key in foreign:
            if key.rpartition(".")[2] in _QUANTISED:
                raise CheckpointError(
                    f"{key}: this checkpoint is quantised in a way that its config.json does not tell, or that is not "
                    "known here; download config.json again, or use the bf16 checkpoint"
                )
        raise CheckpointError(
            f"{foreign[0]}: not part of the model that config.json describes; the two do not belong together"
        )
