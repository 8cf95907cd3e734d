"""The texts that the editor has open, each an immutable snapshot that the next edit replaces.

Turns edits into snapshots. pygls's own store ends lines at form feeds and U+2028 too, so that the next edit is applied
elsewhere, and moves a position past the end of the last line before its last character. `TextChange` is the stretch in
which two versions of a text differ. Knows no protocol types.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from dgemma_lsp.documents.positions import LineIndex, PositionEncoding

_log = logging.getLogger(__name__)

# A path of 4,096 bytes, the most that Linux opens, with each byte escaped, and the folders that it can have.
MOST_URI_CHARS = 16_384
_MOST_FOLDERS = 2_048

NOT_OPEN = "this document is not open, or out of step with the editor; close it, open it and ask again"
HAS_CHANGED = "the document has changed since it was asked about; ask again"
"""Answers to a request about a text, for the user."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """One version of one open text.

    Attributes:
        uri: as the editor spells it.
        version: as the editor counts it.
        language: LSP language id; may be empty.
        text: the whole text, its line ends untouched.
    """

    uri: str
    version: int
    language: str
    text: str

    @cached_property
    def lines(self) -> LineIndex:
        """Where the lines of `text` start."""
        return LineIndex(self.text)

    def edited(self, version: int, edits: Iterable[Edit], encoding: PositionEncoding) -> tuple[Self, int]:
        """Returns the next version, and the offset after what the last edit put there (0 without edits).

        The text is put together once, however many edits there are.

        Args:
            version: of the result.
            edits: each counts its positions in the text that the one before it left.
            encoding: what their columns count.
        """
        lines: LineIndex | None = self.lines
        text: str | None = self.text
        end = 0
        for edit in edits:
            if edit.span is None:
                lines, text, end = None, edit.text, len(edit.text)
                continue
            lines = lines or LineIndex(text or "")
            start, stop = sorted(lines.offset(line, column, encoding) for line, column in edit.span)
            lines, text, end = lines.edited(start, stop, edit.text), None, start + len(edit.text)
        if text is None:
            text = lines.text if lines else ""
        document = type(self)(uri=self.uri, version=version, language=self.language, text=text)
        if lines is not None:
            vars(document)["lines"] = lines
        return document, end


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A replacement of text between two positions (line, column), or of the whole text where `span` is None."""

    span: tuple[tuple[int, int], tuple[int, int]] | None
    text: str


class Documents:
    """The open texts by uri."""

    def __init__(self) -> None:
        self._open: dict[str, Document] = {}
        self._out_of_step: set[str] = set()

    def open(self, document: Document) -> None:
        """Adds a text; replaces an open one of the same uri. A text whose URI is too long for a file is left out."""
        if len(document.uri) > MOST_URI_CHARS:
            _log.warning("a document is not completed: its URI is longer than %d characters", MOST_URI_CHARS)
            return
        if document.uri.count("/") > _MOST_FOLDERS:
            _log.warning("a document is not completed: its URI has more than %d slashes", _MOST_FOLDERS)
            return
        self._open[document.uri] = document
        self._out_of_step.discard(document.uri)

    def close(self, uri: str) -> None:
        """Removes a text; one that is not open is ignored."""
        self._open.pop(uri, None)
        self._out_of_step.discard(uri)

    def lose(self, uri: str) -> bool:
        """Marks a text as out of step with the editor's, until it is opened again or replaced as a whole.

        Returns:
            Whether it was in step.
        """
        if self.get(uri) is None:
            return False
        self._out_of_step.add(uri)
        return True

    def get(self, uri: str) -> Document | None:
        """Returns the newest version, or None where the text is not open or out of step."""
        return None if uri in self._out_of_step else self._open.get(uri)

    def all(self) -> tuple[Document, ...]:
        """Returns the newest version of each that is in step."""
        return tuple(document for uri, document in self._open.items() if uri not in self._out_of_step)

    def change(self, uri: str, version: int | None, edits: Iterable[Edit], encoding: PositionEncoding) -> int | None:
        """Applies edits in order; of a text that is out of step, only those from a whole text on.

        Args:
            uri: the text.
            version: its version after the edits; None where the editor counts none.
            edits: each counts its positions in the text that the one before it left.
            encoding: what their columns count.

        Returns:
            Offset after what the last edit put there; None where the edits are dropped: the text is not open, or still
            out of step.
        """
        document = self._open.get(uri)
        if document is None:
            return None
        if uri in self._out_of_step:
            edits = list(edits)
            whole = next((index for index in reversed(range(len(edits))) if edits[index].span is None), None)
            if whole is None:
                return None
            edits = edits[whole:]
            self._out_of_step.discard(uri)
        self._open[uri], end = document.edited(document.version if version is None else version, edits, encoding)
        return end


_PIECES = (65_536, 1_024, 32, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextChange:
    """`old[start:old_end]` became `new[start:new_end]`; the text before and after is the same."""

    start: int
    old_end: int
    new_end: int

    @classmethod
    def between(cls, old: str, new: str) -> TextChange:
        """Returns the shortest stretch that holds all differences; of several the last in the text."""
        start = same = 0
        most = min(len(old), len(new))
        # Large pieces first, since most texts are alike.
        for size in _PIECES:
            while start + size <= most and old.startswith(new[start : start + size], start):
                start += size
        for size in _PIECES:
            while start + same + size <= most and old.endswith(
                new[len(new) - same - size : len(new) - same], 0, len(old) - same
            ):
                same += size
        return cls(start=start, old_end=len(old) - same, new_end=len(new) - same)

    def moved(self, start: int, end: int) -> tuple[int, int]:
        """Returns where `old[start:end]` is in `new`; changed text inside it counts as part of it."""
        shift = self.new_end - self.old_end
        if self.start >= end:
            return start, end
        if self.old_end <= start:
            return start + shift, end + shift
        return min(start, self.start), end + shift if end >= self.old_end else self.new_end
