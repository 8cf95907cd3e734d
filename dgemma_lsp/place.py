"""Where a question was asked, without its text: enough to tell that a later text is this one, with something typed.

Pure. Whole texts are kept as hashes, so that a hundred places cost what one costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from dgemma_lsp.request import Request

_CLOSERS = frozenset(")]}\"'`")
_MOST_CLOSERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A cursor in a text.

    Attributes:
        uri: names the document.
        offset: the cursor, in code points from the start of the text.
        before: hash of the text before the cursor; good within this process.
        closers: brackets and quotes right behind the cursor, the first few.
        after: hash of what follows them.
        elsewhere: hash of what the model sees before and after the document: other cells of a notebook.
    """

    uri: str
    offset: int
    before: int
    closers: str
    after: int
    elsewhere: int = 0

    @classmethod
    def of(cls, request: Request) -> Self:
        """Returns where a question is asked."""
        elsewhere = hash((request.above, request.below)) if request.above or request.below else 0
        return cls.at(request.uri, request.text, request.offset, elsewhere=elsewhere)

    @classmethod
    def at(cls, uri: str, text: str, offset: int, *, elsewhere: int) -> Self:
        """Returns where an offset of a document's text is."""
        end = offset
        while end < min(len(text), offset + _MOST_CLOSERS) and text[end] in _CLOSERS:
            end += 1
        return cls(
            uri=uri,
            offset=offset,
            before=hash(text[:offset]),
            closers=text[offset:end],
            after=hash(text[end:]),
            elsewhere=elsewhere,
        )

    def leads_to(self, later: Place, text: str) -> bool:
        """Whether typing alone leads from here to `later`.

        What follows the cursor must be the same, but for closers: editors put one there with its opener, and the one
        that is there is typed over.

        Args:
            later: another place.
            text: the whole text there.
        """
        if (self.uri, self.after, self.elsewhere) != (later.uri, later.after, later.elsewhere):
            return False
        if self.offset > later.offset:
            return False
        if not (self.closers.endswith(later.closers) or later.closers.endswith(self.closers)):
            return False
        return self.before == (later.before if self.offset == later.offset else hash(text[: self.offset]))


def typed_since(offset: int, text: str, cursor: int) -> str:
    """Returns the text between an earlier cursor and a later one, with `\\n` line ends, as answers have them."""
    typed = text[offset:cursor]
    return typed.replace("\r\n", "\n").replace("\r", "\n") if "\r" in typed else typed
