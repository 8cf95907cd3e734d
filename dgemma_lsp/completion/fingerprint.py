"""Fingerprint of a cursor position: hashes that tell whether a later text is the same one with something typed.

Pure. No text is kept, and the text near the cursor only is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from dgemma_engine.postprocess.cursor_context import normalize_newlines

from dgemma_lsp.request import Request

_CLOSERS = ")]}\"'`"
_MOST_CLOSERS = 8
# More than an answer depends on.
_CHARS_EACH_SIDE = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorFingerprint:
    """A cursor in a text.

    Attributes:
        uri: names the document.
        offset: the cursor, in code points from the start of the text.
        before: hash of the 64 Ki characters before the cursor; good within this process.
        closers: brackets and quotes right behind the cursor, the first few.
        after: hash of the 64 Ki characters that follow them, and of how many follow.
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
        """Returns the fingerprint of a question's cursor."""
        elsewhere = hash((request.above, request.below)) if request.above or request.below else 0
        skipped, beyond = request.skipped, request.beyond
        return cls.at(request.uri, request.text, request.cursor, elsewhere=elsewhere, skipped=skipped, beyond=beyond)

    @classmethod
    def at(cls, uri: str, text: str, cursor: int, *, elsewhere: int, skipped: int = 0, beyond: int = 0) -> Self:
        """Returns the fingerprint of an offset of a document.

        Args:
            uri: names the document.
            text: its text, or the part of it around the cursor.
            cursor: in code points from the start of the document.
            elsewhere: hash of what the model sees before and after the document.
            skipped: characters of the document before `text`.
            beyond: characters of the document after `text`.
        """
        offset = cursor - skipped
        closers = closers_after(text[offset : offset + _MOST_CLOSERS])
        end = offset + len(closers)
        return cls(
            uri=uri,
            offset=cursor,
            before=_hash_before(text, offset),
            closers=closers,
            after=hash((len(text) - end + beyond, text[end : end + _CHARS_EACH_SIDE])),
            elsewhere=elsewhere,
        )

    def leads_to(self, later: CursorFingerprint, text: str, *, skipped: int = 0) -> bool:
        """Whether typing alone leads from here to `later`.

        What follows the cursor must be the same, but for closers: editors put one there with its opener, and the one
        that is there is typed over.

        Args:
            later: the fingerprint of another cursor.
            text: the later text, or the part of it around the cursor.
            skipped: characters of the document before `text`.
        """
        if (self.uri, self.after, self.elsewhere) != (later.uri, later.after, later.elsewhere):
            return False
        if not skipped <= self.offset <= later.offset <= self.offset + _CHARS_EACH_SIDE:
            return False
        if not (self.closers.endswith(later.closers) or later.closers.endswith(self.closers)):
            return False
        if self.offset == later.offset:
            return self.before == later.before
        return self.before == _hash_before(text, self.offset - skipped)


def _hash_before(text: str, offset: int) -> int:
    return hash(text[max(0, offset - _CHARS_EACH_SIDE) : offset])


def closers_after(text: str) -> str:
    """Returns the brackets and quotes that a text begins with, the first few."""
    near = text[:_MOST_CLOSERS]
    return near[: len(near) - len(near.lstrip(_CLOSERS))]


def typed_since(offset: int, text: str, cursor: int) -> str:
    """Returns the text between an earlier cursor and a later one, with `\\n` line ends, as answers have them."""
    typed = text[offset:cursor]
    return normalize_newlines(typed)
