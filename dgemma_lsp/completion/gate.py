"""Settings, paused languages and private files -> why nothing is offered in a document, if so."""

from __future__ import annotations

from collections.abc import Callable

from dgemma_engine.bounded_store import BoundedStore

from dgemma_lsp.documents.notebooks import Notebooks
from dgemma_lsp.documents.store import Document
from dgemma_lsp.privacy.policy import Privacy
from dgemma_lsp.request import Request
from dgemma_lsp.settings.language_ids import canonical_id
from dgemma_lsp.settings.settings import SECTION, Settings

OFF = f"switched off by {SECTION}.enabled"

# At least as many characters as any rule about first lines reads.
HEAD_CHARS = 8_192
# Documents whose answers are kept: more than anybody types in within a second.
_MOST_KEPT = 32
# A link or an ignore file may change meanwhile.
_RECHECK_S = 1.0


class CompletionGate:
    """Decides whether anything is offered in a document; the reason against it is one line for a person.

    Args:
        notebooks: the open notebooks.
        privacy: decides which files are private.
        clock: seconds that never go backwards.

    Attributes:
        settings: those in force.
    """

    def __init__(self, notebooks: Notebooks, privacy: Privacy, *, clock: Callable[[], float]) -> None:
        self.settings = Settings()
        self._notebooks = notebooks
        self._privacy = privacy
        self._clock = clock
        # By document: what the answer depends on, until when it holds, and the answer.
        self._known: BoundedStore[str, tuple[tuple[Settings, str, str], float, str | None]] = BoundedStore(_MOST_KEPT)

    def why_not_complete(self, subject: Document | Request) -> str | None:
        """Returns why no ghost text is offered in a document, or at a question with the beginning of its text.

        The answer for the same settings and first lines is kept for a second, since each key asks for it.
        """
        asked, now_s = (self.settings, subject.language, subject.text[:HEAD_CHARS]), self._clock()
        known = self._known.get(subject.uri)
        if known is not None and known[0] == asked and now_s < known[1]:
            return known[2]
        paused = {canonical_id(language) for language in self.settings.paused_languages}
        if paused and canonical_id(subject.language) in paused:
            why = f"{subject.language} is paused by {SECTION}.pausedLanguages"
        else:
            why = self.why_not(subject)
        self._known.put(subject.uri, (asked, now_s + _RECHECK_S, why))
        return why

    def why_not(self, subject: Document | Request) -> str | None:
        """Returns why nothing is done in a document, not even by hand."""
        if not self.settings.enabled:
            return OFF
        # A cell is as private as the file that it is kept in.
        uri = self._notebooks.holders.get(subject.uri, subject.uri)
        return self._privacy.why_not_complete(uri, subject.language, subject.text[:HEAD_CHARS])

    def forget(self) -> None:
        """Reads the ignore files again when they are next needed."""
        self._known.clear()
        self._privacy.forget()
