"""How far quantised weights are from what they were, per kind of parameter: a table and JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dgemma_engine.checkpoint.key_map import TensorKind
from dgemma_engine.quantization.quantized_tensor import Encoding, QuantisedTensor


@dataclass(slots=True, kw_only=True)
class _Sums:
    """Sums over the matrices of one kind."""

    encodings: set[Encoding]
    num_weights: int = 0
    num_bytes: int = 0
    error_squares: float = 0.0
    weight_squares: float = 0.0
    largest_error: float = 0.0
    worst: float = 0.0
    worst_name: str = ""


class ErrorReport:
    """Gathers errors, matrix by matrix."""

    def __init__(self) -> None:
        self._kinds: dict[TensorKind, _Sums] = {}

    def add(self, kind: TensorKind, name: str, weight: Tensor, quantised: QuantisedTensor) -> None:
        """Counts a matrix.

        Args:
            kind: of its parameter.
            name: of the matrix.
            weight: before, float [N, K].
            quantised: after.
        """
        sums = self._of(kind)
        exact = weight.float()
        error = quantised.dequantise(exact.dtype).sub_(exact)
        error_squares, weight_squares = float(error.square().sum()), float(exact.square().sum())
        relative = (error_squares / weight_squares) ** 0.5 if weight_squares else 0.0
        sums.encodings.add(quantised.encoding)
        sums.num_weights += weight.numel()
        sums.num_bytes += quantised.num_bytes
        sums.error_squares += error_squares
        sums.weight_squares += weight_squares
        sums.largest_error = max(sums.largest_error, float(error.abs().max()))
        if relative >= sums.worst:
            sums.worst, sums.worst_name = relative, name

    def add_kept(self, kind: TensorKind, num_weights: int, num_bytes: int) -> None:
        """Counts weights that stay as they were."""
        sums = self._of(kind)
        sums.num_weights += num_weights
        sums.num_bytes += num_bytes

    def to_json(self) -> list[dict[str, Any]]:
        """Returns one object per kind.

        Errors are root mean square, relative to the weights' own; `largest_error` is absolute.
        """
        return [
            {
                "kind": kind.value,
                "encoding": ", ".join(sorted(sums.encodings)) or "as it was",
                "weights": sums.num_weights,
                "bytes": sums.num_bytes,
                "relative_error": (sums.error_squares / sums.weight_squares) ** 0.5 if sums.weight_squares else 0.0,
                "worst_relative_error": sums.worst,
                "worst_matrix": sums.worst_name,
                "largest_error": sums.largest_error,
            }
            for kind, sums in self._kinds.items()
        ]

    def table(self) -> Iterator[str]:
        """Yields lines for a terminal."""
        yield f"{'':<20}{'encoding':<12}{'weights':>14}{'MB':>10}{'error':>9}{'worst':>9}{'largest':>11}"
        for row in self.to_json():
            line = f"{row['kind']:<20}{row['encoding']:<12}{row['weights']:>14,}{row['bytes'] / 1e6:>10.1f}"
            errors = f"{row['relative_error']:>9.2%}{row['worst_relative_error']:>9.2%}{row['largest_error']:>11.3g}"
            yield line + (errors if row["worst_matrix"] else "")

    def _of(self, kind: TensorKind) -> _Sums:
        return self._kinds.setdefault(kind, _Sums(encodings=set()))
