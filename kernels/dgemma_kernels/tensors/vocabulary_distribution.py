"""The distribution of each position that a denoising step computes from its logits, and the tokens that are banned.

Shape legend: N positions, V vocabulary, R sets of banned tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Banned:
    """Tokens that cannot appear, a set for each position; every position must keep at least one token.

    Attributes:
        sets_RV: True where a token is banned, bool.
        set_of_N: which set holds at each position, int32; -1 bans nothing.
    """

    sets_RV: Tensor
    set_of_N: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularyDistribution:
    """The distribution of each position, at one temperature.

    Attributes:
        probs_NV: distribution, in the logits' dtype and memory.
        best_N: likeliest token, of equals the lowest, int32.
        sampled_N: token drawn at the position's level, int32.
        entropy_N: nats, float32.
        confidence_N: probability of the likeliest token at temperature 1, float32.
    """

    probs_NV: Tensor
    best_N: Tensor
    sampled_N: Tensor
    entropy_N: Tensor
    confidence_N: Tensor
