"""Recent documents, newest visit first, closed ones too: names only, no text.

Observes the open documents at every question; a new version is a visit. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from dgemma_lsp.documents.bounded_store import BoundedStore
from dgemma_lsp.documents.store import Document

# Languages that read each other's files.
_FAMILIES = (
    frozenset({"javascript", "javascriptreact", "typescript", "typescriptreact"}),
    frozenset({"c", "cpp", "objective-c", "objective-cpp"}),
    frozenset({"css", "scss", "less"}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentDocument:
    """A document that was open.

    Attributes:
        uri: the document.
        language: LSP language id.
        version: the newest that was seen.
    """

    uri: str
    language: str
    version: int


class RecentDocuments:
    """The documents of one editor, newest visit last.

    Args:
        num_documents: how many are kept; more than anybody has open at once.
    """

    def __init__(self, *, num_documents: int = 1_024) -> None:
        self._documents: BoundedStore[str, RecentDocument] = BoundedStore(num_documents)

    def observe(self, documents: Sequence[Document], current: str) -> list[Document]:
        """Records what is open; returns the documents that are new or have a new version.

        Args:
            documents: all that are open.
            current: uri of the one that the user is in.
        """
        changed: list[Document] = []
        for document in documents:
            known = self._documents.get(document.uri)
            if known is None or known.version != document.version:
                recent = RecentDocument(uri=document.uri, language=document.language, version=document.version)
                self._documents.put(document.uri, recent)
                changed.append(document)
        if current in self._documents:
            self._documents.use(current)
        return changed

    def others(self, uri: str, language: str, most: int) -> list[RecentDocument]:
        """Returns the other documents of the same language or family, newest visit first.

        Args:
            uri: the document that is asked for.
            language: its language id.
            most: at most so many.
        """
        family = next((family for family in _FAMILIES if language in family), {language})
        recent = (document for _, document in reversed(self._documents.items()))
        same = (document for document in recent if document.uri != uri and document.language in family)
        return list(islice(same, most))
