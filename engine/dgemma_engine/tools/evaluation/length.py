"""What the engine is told of a middle's length: nothing, the truth, or the same number for every hole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

MAX_TOKENS = 4_096
"""The longest middle a `Context` may ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How the number of tokens in the hole is known.

    Attributes:
        name: `auto`, `oracle` or `fixed:N`, as it was asked for.
        fixed_tokens: for every hole; None where each has its own.
    """

    name: str = "auto"
    fixed_tokens: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `auto`, `oracle` or `fixed:N`.

        Raises:
            ValueError: it is something else, or N is out of range.
        """
        if text in ("auto", "oracle"):
            return cls(name=text)
        match = re.fullmatch(r"fixed:(\d{1,4})", text)
        if match is None or not 1 <= int(match[1]) <= MAX_TOKENS:
            raise ValueError(f"{text!r} must be auto, oracle or fixed:N with N from 1 to {MAX_TOKENS}")
        return cls(name=text, fixed_tokens=int(match[1]))

    def slot_tokens(self, true_tokens: int) -> int | None:
        """Returns the tokens the engine is told of, or None if it has to find out.

        Args:
            true_tokens: tokens of the true middle; only `oracle` uses them.
        """
        return min(max(true_tokens, 1), MAX_TOKENS) if self.name == "oracle" else self.fixed_tokens
