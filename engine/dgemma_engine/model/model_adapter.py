"""The interface of an adapter that stands beside a model's weights in memory; each model makes those that it reads."""

from __future__ import annotations

from typing import Protocol


class ModelAdapter(Protocol):
    """The terms that passes over one cache add to the weights, in the form that one model reads."""

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        ...
