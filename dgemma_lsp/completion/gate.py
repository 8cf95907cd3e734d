"""Whether something may be offered in a document: settings, paused languages and private files in, a reason out."""

from __future__ import annotations

from dgemma_lsp.documents.notebooks import Notebooks
from dgemma_lsp.documents.store import Documents
from dgemma_lsp.privacy.policy import Privacy
from dgemma_lsp.request import Request
from dgemma_lsp.settings.language_ids import canonical_id
from dgemma_lsp.settings.settings import SECTION, Settings

OFF = f"switched off by {SECTION}.enabled"

# More than any rule about first lines reads.
HEAD_CHARS = 8_192


class CompletionGate:
    """Returns why nothing is offered, as one line for a person; None where something may be.

    Args:
        documents: the open documents.
        notebooks: the open notebooks.
        privacy: decides which files are private.

    Attributes:
        settings: those that hold.
    """

    def __init__(self, documents: Documents, notebooks: Notebooks, privacy: Privacy) -> None:
        self.settings = Settings()
        self._documents = documents
        self._notebooks = notebooks
        self._privacy = privacy

    def why_not_complete(self, request: Request) -> str | None:
        """Returns why no ghost text is offered in a document."""
        paused = {canonical_id(language) for language in self.settings.paused_languages}
        if paused and canonical_id(request.language) in paused:
            return f"{request.language} is paused by {SECTION}.pausedLanguages"
        return self.why_not_on_demand(request)

    def why_not_on_demand(self, request: Request) -> str | None:
        """Returns why a preview is refused: it is asked for by hand, also in paused languages."""
        document = self._documents.get(request.uri) if request.skipped else None
        text = request.text if document is None else document.text
        return self.why_not(request.uri, request.language, text)

    def why_not(self, uri: str, language: str, text: str) -> str | None:
        """Returns why nothing at all is done in a document.

        Args:
            uri: the document's.
            language: LSP language id; may be empty.
            text: its text, or the beginning of it.
        """
        if not self.settings.enabled:
            return OFF
        # A cell is as private as the file that it is kept in.
        return self._privacy.why_not_complete(self._notebooks.holder(uri) or uri, language, text[:HEAD_CHARS])
