"""The last answered question of each document; the next one is sent as changes of it. Pure."""

from __future__ import annotations

from dgemma_engine.bounded_store import BoundedStore
from dgemma_engine.protocol.remote_messages import QuestionText

# As many as `http_api` keeps of a session.
_NUM_KEPT = 8


class KnownQuestions:
    """Questions by document."""

    def __init__(self) -> None:
        self._last: BoundedStore[str, QuestionText] = BoundedStore(_NUM_KEPT)

    def base_of(self, document: str) -> QuestionText | None:
        """Returns the question to send changes of: the document's last, else the newest of all; None where none is.

        Args:
            document: key of the document.
        """
        newest = self._last.items()
        return self._last.get(document) or (newest[-1][1] if newest else None)

    def answered(self, document: str, question: QuestionText) -> None:
        """Keeps a question that the other machine has."""
        self._last.put(document, question)

    def forget(self) -> None:
        """Drops all: the other machine has lost one of them."""
        self._last.clear()
