"""What the user does in one document, as far as the next completion depends on it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dgemma_lsp.completion.cache import EngineAnswer
from dgemma_lsp.completion.debounce import TypingCadence


@dataclass(slots=True, kw_only=True)
class TypingState:
    """What the user does in one document.

    Attributes:
        cadence: of the keys.
        is_edited: whether an edit came since the last question.
        deleted: whether the last edit only took text away.
        said_nothing: whether the engine had nothing to say when it was asked last, and no key was held back since.
        shown: the answer behind the item that is shown.
        speculation: asks ahead when it fires.
    """

    cadence: TypingCadence
    is_edited: bool = False
    deleted: bool = False
    said_nothing: bool = False
    shown: EngineAnswer | None = None
    speculation: asyncio.TimerHandle | None = None

    def put_off(self) -> None:
        """Does not ask ahead."""
        if self.speculation is not None:
            self.speculation.cancel()
            self.speculation = None
