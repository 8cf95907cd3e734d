"""The outcome of one denoising step at the free positions of a canvas: what acceptance and stop rules decide by.

Shape legend: R rows, M positions of the longest free part.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionScores:
    """Scores of the free positions; rows with fewer than M are filled up, and `valid_RM` is False there.

    Attributes:
        best_RM: the answer so far, int64: a committed token, elsewhere the likeliest one.
        entropy_RM: nats at the step's temperature, float32.
        valid_RM: bool.
        committed_RM: bool, where the canvas holds a token that is no noise; None if noise cannot be told from tokens.
    """

    best_RM: Tensor
    entropy_RM: Tensor
    valid_RM: Tensor
    committed_RM: Tensor | None = None
