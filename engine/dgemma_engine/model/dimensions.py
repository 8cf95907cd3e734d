"""The configuration values of a model that code outside its family's own files reads.

Shape legend: D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from dgemma_engine.model.config import LayerKind


class ModelDimensions(Protocol):
    """The configuration values that code outside a family's own files reads."""

    @property
    def vocab_size(self) -> int:
        """V; token ids are below it."""
        ...

    @property
    def hidden_size(self) -> int:
        """D."""
        ...

    @property
    def canvas_length(self) -> int:
        """Most canvas positions of a row."""
        ...

    @property
    def max_position_embeddings(self) -> int:
        """Most tokens of prompt and canvas."""
        ...

    @property
    def sliding_window(self) -> int:
        """Tokens that a sliding layer attends to, the query's own included; any value where no layer is sliding."""
        ...

    @property
    def layer_kinds(self) -> Sequence[LayerKind]:
        """One for each layer whose keys and values a prompt keeps; none where every pass carries the whole prompt."""
        ...

    @property
    def num_kv_heads(self) -> Mapping[LayerKind, int]:
        """Key-value heads of a layer."""
        ...

    @property
    def head_dim(self) -> Mapping[LayerKind, int]:
        """Size of a head."""
        ...

    @property
    def final_logit_softcapping(self) -> float | None:
        """Bound c of the logits, `c * tanh(logit / c)`; None leaves them as they are."""
        ...

    @property
    def bos_token_id(self) -> int:
        """Token that begins a prompt."""
        ...

    @property
    def eos_token_ids(self) -> Sequence[int]:
        """Tokens that end a text."""
        ...
