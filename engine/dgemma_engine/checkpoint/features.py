"""What is known of a candidate when it is scored: plain numbers, named, in one order.

`calibration` weighs them; `likelihood` fills them in. Knows no tensors and no text.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Of one candidate; all finite. Log-probabilities are in nats.

    Attributes:
        middle_mean: mean log-probability of its tokens and of what ends them, left to right.
        middle_sum: the sum of the same.
        suffix_mean: mean log-probability of the first suffix tokens after it, left to right; 0 without a suffix.
        canvas_mean: mean log-probability of its tokens on the canvas; 0 for one that no canvas proposed.
        canvas_sum: the sum of the same: the log-probability of the whole middle, given its length.
        canvas_least: log-probability of the least likely of them; 0 for one that no canvas proposed.
        on_canvas: 1 if a canvas proposed it.
        seed_before: log(1 + lexemes that match before the place the text was found); 0 for one not found.
        seed_after: the same after it.
        seed_places: log(1 + places it was found at).
        agreement: how many other ways of proposing gave the same text.
        length: log(1 + tokens).
        added_errors: syntax errors it adds to the file, -2 to 2.
        written: 1 if the causal mode wrote it.
        odds: log-odds of the probability of all its tokens and of what ends them, `LEAST_ODDS` to `MOST_ODDS`; 0 where
            the causal mode did not write it.
        end: log-probability of what ends it; 0 for a model that ends nothing.
        share: share of the probability of all candidates, each with the suffix after it, 0 to 1.
    """

    middle_mean: float
    middle_sum: float
    suffix_mean: float
    canvas_mean: float = 0.0
    canvas_sum: float = 0.0
    canvas_least: float = 0.0
    on_canvas: float = 0.0
    seed_before: float = 0.0
    seed_after: float = 0.0
    seed_places: float = 0.0
    agreement: float = 0.0
    length: float = 0.0
    added_errors: float = 0.0
    written: float = 0.0
    odds: float = 0.0
    end: float = 0.0
    share: float = 0.0

    def vector(self) -> tuple[float, ...]:
        """Returns the values in the order of `NAMES`."""
        return tuple(float(getattr(self, name)) for name in NAMES)


NAMES = tuple(field.name for field in fields(Features))
LATER_NAMES = frozenset({"canvas_sum", "written", "odds", "end", "share"})
"""Features that were added later: a calibration that was fitted without them gives them no weight."""
LEAST_ODDS, MOST_ODDS = -8.0, 6.0
