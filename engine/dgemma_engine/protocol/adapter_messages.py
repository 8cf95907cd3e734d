"""The part of an answer about the adapter of the user's repository."""

from __future__ import annotations

from dataclasses import dataclass

from dgemma_engine.protocol.codec import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterUse(Message):
    """Whether an adapter of the user's repository took part in an answer.

    Attributes:
        root: the repository that has an adapter; empty where there is none.
        fault: why the model answered without it, and what to do; empty where it took part.
    """

    root: str = ""
    fault: str = ""

    def __post_init__(self) -> None:
        if self.fault and not self.root:
            raise ValueError(f"{self.fault=} needs a root")
