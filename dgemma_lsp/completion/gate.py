"""Settings, paused languages and private files -> why nothing is offered in a document, if so."""

from __future__ import annotations

from dgemma_lsp.documents.notebooks import Notebooks
from dgemma_lsp.documents.store import Document
from dgemma_lsp.privacy.policy import Privacy
from dgemma_lsp.request import Request
from dgemma_lsp.settings.language_ids import canonical_id
from dgemma_lsp.settings.settings import SECTION, Settings

OFF = f"switched off by {SECTION}.enabled"

# At least as many characters as any rule about first lines reads.
HEAD_CHARS = 8_192


class CompletionGate:
    """Returns why nothing is offered, as one line for a person; None where something may be.

    Args:
        notebooks: the open notebooks.
        privacy: decides which files are private.

    Attributes:
        settings: those that hold.
    """

    def __init__(self, notebooks: Notebooks, privacy: Privacy) -> None:
        self.settings = Settings()
        self._notebooks = notebooks
        self._privacy = privacy

    def why_not_complete(self, subject: Document | Request) -> str | None:
        """Returns why no ghost text is offered in a document, or at a question with the beginning of its text."""
        paused = {canonical_id(language) for language in self.settings.paused_languages}
        if paused and canonical_id(subject.language) in paused:
            return f"{subject.language} is paused by {SECTION}.pausedLanguages"
        return self.why_not(subject)

    def why_not(self, subject: Document | Request) -> str | None:
        """Returns why nothing is done in a document, not even by hand."""
        if not self.settings.enabled:
            return OFF
        # A cell is as private as the file that it is kept in.
        uri = self._notebooks.holder(subject.uri) or subject.uri
        return self._privacy.why_not_complete(uri, subject.language, subject.text[:HEAD_CHARS])
