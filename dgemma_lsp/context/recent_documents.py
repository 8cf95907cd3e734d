"""Which documents the user was in, newest visit first, closed ones too: names only, no text.

Told of the open documents whenever there is a question; a new version is a visit. Knows no disk.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from dgemma_lsp.documents.store import Document

_MOST_CLOSED = 64
# Languages that read each other's files.
_FAMILIES = (
    frozenset({"javascript", "javascriptreact", "typescript", "typescriptreact"}),
    frozenset({"c", "cpp", "objective-c", "objective-cpp"}),
    frozenset({"css", "scss", "less"}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A document that was open.

    Attributes:
        uri: the document.
        language: LSP language id.
        version: the newest that was seen.
    """

    uri: str
    language: str
    version: int


class Visits:
    """The documents of one editor, newest visit last."""

    def __init__(self) -> None:
        self._visits: OrderedDict[str, Visit] = OrderedDict()

    def observe(self, documents: Sequence[Document], current: str) -> list[Document]:
        """Takes note of what is open; returns the documents that are new or have a new version.

        Args:
            documents: all that are open.
            current: uri of the one that the user is in.
        """
        changed: list[Document] = []
        for document in documents:
            known = self._visits.get(document.uri)
            if known is None or known.version != document.version:
                self._visits[document.uri] = Visit(
                    uri=document.uri, language=document.language, version=document.version
                )
                self._visits.move_to_end(document.uri)
                changed.append(document)
        if current in self._visits:
            self._visits.move_to_end(current)
        opened = {document.uri for document in documents}
        closed = [uri for uri in self._visits if uri not in opened]
        for uri in closed[: max(0, len(closed) - _MOST_CLOSED)]:
            del self._visits[uri]
        return changed

    def others(self, uri: str, language: str, most: int) -> list[Visit]:
        """Returns the other documents of the same language or family, newest visit first.

        Args:
            uri: the document that is asked for.
            language: its language id.
            most: at most so many.
        """
        family = next((family for family in _FAMILIES if language in family), {language})
        same = (visit for visit in reversed(self._visits.values()) if visit.uri != uri and visit.language in family)
        return [visit for _, visit in zip(range(most), same, strict=False)]
