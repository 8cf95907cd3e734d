"""Noise policies: what stands at a free position that holds no accepted token.

A new policy is one frozen (hashable) class with the methods of `Noise`; the loop needs no change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Noise(Protocol):
    """Draws noise, and tells it from text where it can."""

    @property
    def suppressed_ids(self) -> Sequence[int]:
        """Token ids that only noise may hold: no step proposes them."""
        ...

    def draw(self, num_rows: int, length: int, generator: torch.Generator) -> Tensor:
        """Returns noise [num_rows, length], int64, on the generator's device."""
        ...

    def committed(self, ids: Tensor) -> Tensor | None:
        """Returns which token ids are no noise, bool; None if any id may be noise.

        An accepted position keeps a committed token and takes a newly drawn one elsewhere. Called while a CUDA graph is
        captured: tensor operations without host synchronisation.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformNoise:
    """Noise is uniform over the whole vocabulary: there is no mask token, and every position is drawn anew.

    Attributes:
        vocab_size: V.
    """

    vocab_size: int

    @property
    def suppressed_ids(self) -> Sequence[int]:
        """See `Noise.suppressed_ids`."""
        return ()

    def draw(self, num_rows: int, length: int, generator: torch.Generator) -> Tensor:
        """See `Noise.draw`."""
        shape = (num_rows, length)
        return torch.randint(0, self.vocab_size, shape, generator=generator, device=generator.device)

    def committed(self, ids: Tensor) -> Tensor | None:
        """See `Noise.committed`."""
        return None
