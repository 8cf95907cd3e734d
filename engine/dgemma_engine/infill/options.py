"""Options of one fill, apart from the request: which candidates are made, and how long the middle is.

The product always uses the default; `dgemma-engine eval` leaves parts out to measure what they contribute. Knows no
tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Decode(StrEnum):
    """What proposes candidates."""

    ALL = "all"
    DIFFUSION = "diffusion"
    LEFT_TO_RIGHT = "ltr"


@dataclass(frozen=True, slots=True, kw_only=True)
class InfillOptions:
    """Choices of one request.

    Attributes:
        decode: what proposes candidates; `ALL` ranks those of the others together.
        slot_tokens: how many tokens the middle has, where that is known (an oracle) or fixed; None finds out.
        fill: whether a checkpoint's fill token may be used; False treats it as one that was never trained to fill.
        seeds: whether text that stands elsewhere in the file or the project is proposed.
        forks: whether the causal mode writes more than one candidate.
        silence: whether an answer whose score is below the threshold is kept back.
    """

    decode: Decode = Decode.ALL
    slot_tokens: int | None = None
    fill: bool = True
    seeds: bool = True
    forks: bool = True
    silence: bool = True

    def __post_init__(self) -> None:
        if self.slot_tokens is not None and self.slot_tokens < 1:
            raise ValueError(f"{self.slot_tokens=} must be at least 1")


DEFAULT = InfillOptions()
