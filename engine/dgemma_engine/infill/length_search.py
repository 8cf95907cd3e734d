"""How long a middle may be, for a checkpoint that cannot say so itself: a grid, a prior, and a score for each length.

The first denoising step is surest at the true length once the general trend over lengths is taken off (CAL,
arXiv 2602.00476). The trend is the calibration's; the prior comes from the lines around the cursor. Numbers in, numbers
out; knows no tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dgemma_engine.protocol.messages import Extent

GRID = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Lengths for a model whose later steps move text about: a middle that is a bit shorter or longer still comes out."""
DENSE_GRID = (*range(1, 17), 20, *GRID[8:])
"""Lengths for a model whose committed tokens stay: a middle of another length than its row's cannot come out of it."""
# Lines around the cursor that the prior is made from.
_NEARBY_LINES = 120
# Of the prior: share that is spread evenly in log length, so that nothing is impossible.
_FLAT_SHARE = 0.2


def grid(extent: Extent, most: int, lengths: Sequence[int] = GRID) -> tuple[int, ...]:
    """Returns the lengths to try, ascending, in tokens.

    Args:
        extent: a line is seldom longer than 32 tokens.
        most: tokens that fit.
        lengths: to choose from, ascending.
    """
    lengths = [length for length in lengths if length <= most and (extent is Extent.BLOCK or length <= 32)]
    return tuple(lengths) or (1,)


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthPrior:
    """Probability of each length before the model is asked.

    Attributes:
        lengths: ascending.
        log_probs: nats, one per length.
    """

    lengths: tuple[int, ...]
    log_probs: tuple[float, ...]

    def of(self, length: int) -> float:
        """Returns the log-probability of one of the lengths."""
        return self.log_probs[self.lengths.index(length)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthReading:
    """What the search reads in a hole whose middle is known.

    Attributes:
        true_length: free positions that its row has, what is taken over from the prefix included.
        confidences: for each length of the grid the mean negative entropy of its free positions at the first step,
            nats, one per noise draw.
        prior: over the same lengths.
    """

    true_length: int
    confidences: Mapping[int, Sequence[float]]
    prior: LengthPrior


def surroundings_prior(
    lengths: Sequence[int],
    prefix: str,
    suffix: str,
    *,
    extent: Extent,
    count_tokens: Callable[[str], int],
) -> LengthPrior:
    """Returns how long the rest of a line (or a block of lines) is around the cursor.

    Args:
        lengths: the grid.
        prefix: text before the hole's row.
        suffix: text after it.
        extent: of the middle.
        count_tokens: tokens of a text.
    """
    cut = prefix.rfind("\n") + 1
    begun = count_tokens(prefix[cut:].strip())
    covered = count_tokens(suffix.split("\n", 1)[0].strip())
    before = prefix[:cut].splitlines()[-_NEARBY_LINES:]
    after = suffix.splitlines()[1 : _NEARBY_LINES // 2]
    lines = [count_tokens(line.strip()) for line in (*before, *after) if line.strip()]
    rests = [line - begun - covered for line in lines if line > begun + covered]
    if extent is Extent.BLOCK:
        # One line, or several of the usual length.
        usual = sum(lines) / len(lines) if lines else 8.0
        rests += [round(usual * count) for count in (2, 3, 4, 6) for _ in range(1 + len(lines) // 8)]
    flat = [1 / len(lengths)] * len(lengths)
    if not rests:
        return LengthPrior(lengths=tuple(lengths), log_probs=tuple(map(math.log, flat)))
    seen = [0.0] * len(lengths)
    for rest in rests:
        # Shared by the two lengths of the grid around it.
        logs = [abs(math.log(rest / length)) for length in lengths]
        nearest = sorted(range(len(lengths)), key=lambda i, logs=logs: logs[i])[:2]
        weights = [1 / (0.1 + logs[i]) for i in nearest]
        for i, weight in zip(nearest, weights, strict=True):
            seen[i] += weight / sum(weights)
    total = sum(seen)
    mixed = [_FLAT_SHARE * even + (1 - _FLAT_SHARE) * share / total for even, share in zip(flat, seen, strict=True)]
    return LengthPrior(lengths=tuple(lengths), log_probs=tuple(map(math.log, mixed)))


def best_lengths(
    confidences: Mapping[int, Sequence[float]],
    prior: LengthPrior,
    *,
    bias: Callable[[int], float],
    prior_weight: float,
    count: int,
) -> list[int]:
    """Returns the most promising lengths, best first.

    Args:
        confidences: for each length the mean negative entropy of its free positions, nats, one per noise draw.
        prior: over the same lengths.
        bias: the trend to take off, nats.
        prior_weight: of the prior's nats; 0 ignores it, large ignores the model.
        count: how many.
    """

    def score(length: int) -> float:
        draws = confidences[length]
        return sum(draws) / len(draws) - bias(length) + prior_weight * prior.of(length)

    return sorted(confidences, key=score, reverse=True)[:count]
