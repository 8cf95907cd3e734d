"""Rows that grow and shrink while they are denoised, by tokens for that (DreamOn, arXiv 2602.01326).

Token ids of a row -> the positions that its next tokens come from; without tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Resizing:
    """Two tokens that change the length of a row once they are committed; neither stands for text.

    Attributes:
        expand_id: becomes two masks; where a row has no room, one.
        delete_id: leaves the row, and takes every mask after it along.
        most_free: free positions that a row may grow to; one that began with more does not grow.
    """

    expand_id: int
    delete_id: int
    most_free: int

    def __post_init__(self) -> None:
        if self.most_free < 1:
            raise ValueError(f"{self.most_free=} must be at least 1")
        if self.expand_id == self.delete_id:
            raise ValueError(f"{self.expand_id=} must differ from {self.delete_id=}")

    @property
    def ids(self) -> frozenset[int]:
        """The two tokens."""
        return frozenset((self.expand_id, self.delete_id))

    def places(self, ids: Sequence[int], mask_id: int) -> list[int | None]:
        """Returns the free position that each token of the resized row comes from; None is a mask.

        Args:
            ids: tokens at the free positions of a row, at least one.
            mask_id: of the mask.

        Returns:
            At least one place: a row of which nothing would be left keeps its first.
        """
        end = ids.index(self.delete_id) if self.delete_id in ids else len(ids)
        dropped = [token == self.delete_id or (place > end and token == mask_id) for place, token in enumerate(ids)]
        room = max(0, self.most_free - dropped.count(False))
        places: list[int | None] = []
        for place, token in enumerate(ids):
            if token == self.expand_id:
                places += [None] if room <= 0 else [None, None]
                room -= 1
            elif not dropped[place]:
                places.append(place)
        return places or [0]
