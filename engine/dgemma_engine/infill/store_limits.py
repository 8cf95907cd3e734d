"""How much an engine keeps of the documents it was asked about, in bytes: one user's windows, or a team's.

Documents are not counted: of many small ones more are kept than of a few large ones. The least recently used go first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from dgemma_engine.model.devices import PROMPT_STORE_BYTES, TEXT_STORE_BYTES, free_memory

# Shares of what is free once the model is loaded. Passes and captured graphs need the rest of a card; other replicas
# and programs that of a machine.
_CARD_SHARE, _MACHINE_SHARE, _TEXT_SHARE = 0.7, 0.25, 1 / 16
_MOST_TEXT_BYTES = 2**30
# Bytes for a character of text, measured: an index of beginnings, and a syntax tree.
_INDEX_BYTES, _TREE_BYTES = 70, 43
_INDEX_SHARE = 2 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """What is kept.

    Attributes:
        prompt_bytes: keys and values of prompts, where the model runs. Too few encode a prompt again that was left for
            another document.
        text_bytes: indexes and syntax trees of documents, in the machine's memory.
    """

    prompt_bytes: int
    text_bytes: int = TEXT_STORE_BYTES

    def __post_init__(self) -> None:
        for name in ("prompt_bytes", "text_bytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")

    @classmethod
    def of_one_user(cls, device: torch.device) -> Self:
        """Returns limits for a person's own machine, beside editors and compilers."""
        return cls(prompt_bytes=PROMPT_STORE_BYTES[device.type])

    @classmethod
    def of_team(cls, device: torch.device, *, prompt_bytes: int = 0) -> Self:
        """Returns limits for a machine that does nothing else, from what the loaded model leaves.

        Args:
            device: where the model runs; it is loaded.
            prompt_bytes: in place of a share of what is free; 0 takes that.
        """
        machine_bytes = free_memory(torch.device("cpu"))
        share = _CARD_SHARE if device.type == "cuda" else _MACHINE_SHARE
        return cls(
            prompt_bytes=prompt_bytes or int(share * free_memory(device)),
            text_bytes=min(_MOST_TEXT_BYTES, int(_TEXT_SHARE * machine_bytes)),
        )

    @property
    def indexed_characters(self) -> int:
        """Characters of documents that seeds are found in."""
        return int(_INDEX_SHARE * self.text_bytes / _INDEX_BYTES)

    @property
    def parsed_bytes(self) -> int:
        """Bytes of source whose trees are kept."""
        return int((1 - _INDEX_SHARE) * self.text_bytes / _TREE_BYTES)
