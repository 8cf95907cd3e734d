"""Texts and their changes -> counts of suggestions: offered, accepted as a whole or in pieces, kept.

A suggestion is accepted when its client reports that, or when one change of the document inserts at least three of its
characters where they belong: typing is slower, and accepting a word or a line looks like that. A shorter piece counts
as typing, unless the client reports that it was accepted. Several that are offered at once are one suggestion in
several forms. The text is compared again 30 and 300 seconds later, wherever edits have moved it. Texts stay in memory
for that long; the counts hold none. Characters count as kept where they stand in the same order in runs of at least
three: a run of one or two is chance. Text that a person wrote in between does not count against them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dgemma_lsp.documents.store import TextChange
from dgemma_lsp.metrics.stats import JUDGED_AFTER_S
from dgemma_lsp.request import Completion

_MIN_PIECE_CHARS = 3
_CHARS_COMPARED = 200
_MAX_STANDING = 200
# Text near the cursor that shows how a document ends its lines.
_CHARS_NEAR = 65_536
_MIN_RUN = 3
_MOST_SEARCHED = 100
# Comparison time grows with the square of the length; of a longer text the first characters stand for all.
_MAX_CHARS = 250


@dataclass(slots=True, kw_only=True, eq=False)
class _Offered:
    """A suggestion, in one of its forms, that may still be accepted.

    Attributes:
        number: its id for the client.
        before: the part of the suggestion that stands left of the inserted text.
        inserted: the inserted text, with the document's line ends.
        cursor: offset at which it inserts.
        tail: length of the text after what it replaces.
        rest: what it replaces after the cursor, and the text's next characters.
        num_rest: length of the text after the cursor.
        typed: how many characters of `inserted` stand in the document.
        pieces: how many of them were accepted in pieces, as a client reported or a change showed.
        accepted: whether the client reported that it was accepted.
        displayed: whether the client reported that it was shown.
    """

    number: int
    before: str
    inserted: str
    cursor: int
    tail: int
    rest: str
    num_rest: int
    typed: int = 0
    pieces: int = 0
    accepted: bool = False
    displayed: bool = False

    def num_typed(self, text: str) -> int | None:
        """Returns how many of its characters stand in `text`, or None where the text has become another."""
        start, end = self.cursor - len(self.before), self.cursor + len(self.inserted)
        if text[start : self.cursor] != self.before:
            return None
        if text[self.cursor : end] == self.inserted and len(text) - end == self.tail:
            return len(self.inserted)
        num = len(text) - self.num_rest - self.cursor
        if not 0 <= num <= len(self.inserted):
            return None
        standing = text[self.cursor : self.cursor + num]
        untouched = text.startswith(self.rest, self.cursor + len(standing))
        return num if untouched and self.inserted.startswith(standing) else None


@dataclass(slots=True, kw_only=True)
class _Standing:
    """An accepted suggestion, until its text has been compared for the last time."""

    uri: str
    inserted: str
    text: str
    start: int
    end: int
    accepted_s: float
    due_s: list[int]


class Suggestions:
    """Follows the suggestions of one window.

    Args:
        count: adds counts by name, as `metrics.stats.COUNTS` names them.
        clock: seconds that never go backwards.
    """

    def __init__(self, count: Callable[[Mapping[str, int]], None], *, clock: Callable[[], float]) -> None:
        self._count = count
        self._clock = clock
        self._offered: dict[str, list[_Offered]] = {}
        self._standing: list[_Standing] = []
        self._last_number = 0

    def offer(self, uri: str, text: str, completions: Sequence[Completion]) -> list[int]:
        """Records a suggestion; the rest of one that is being typed through is the same one.

        Args:
            uri: the document.
            text: its text, which the suggestion was made for.
            completions: its forms, the one that is shown first; at least one.

        Returns:
            The numbers to accept them with.
        """
        olds = [old for old in self._offered.get(uri, ()) if old.num_typed(text) is not None]
        forms: list[_Offered] = []
        for completion in completions:
            new = self._new(text, completion)
            forms.append(next((old for old in olds if _is_same(old, new)), new))
        if forms[0] not in olds:
            self._end(uri)
            self._count({"suggestions": 1})
        self._offered[uri] = forms
        return [form.number for form in forms]

    def accept(self, number: int, text_of: Callable[[str], str | None]) -> None:
        """Records that a client has accepted a suggestion; ignores one that is over, or was counted.

        Args:
            number: as `offer` returned it.
            text_of: the text of an open document, by uri.
        """
        found = self._find(number)
        if found is None or found[1].accepted:
            return
        uri, form = found
        form.accepted = True
        text = text_of(uri)
        if text is not None and form.num_typed(text) == len(form.inserted):
            self._take(uri, form, text)

    def accept_part(self, number: int, num_units: int) -> None:
        """Records that a client has accepted the beginning of a suggestion; ignores one that is over.

        Args:
            number: as `offer` returned it.
            num_units: UTF-16 code units of the suggestion that were accepted, from its beginning, which may lie left of
                what it inserts.
        """
        if (found := self._find(number)) is not None:
            form = found[1]
            whole = form.before + form.inserted
            part = whole.encode("utf-16-le", "surrogatepass")[: 2 * max(0, num_units)].decode("utf-16-le", "ignore")
            form.pieces = max(form.pieces, len(part) - len(form.before))

    def display(self, number: int) -> None:
        """Counts that a client has shown a suggestion, once in all its forms.

        Args:
            number: as `offer` returned it.
        """
        if (found := self._find(number)) is not None:
            forms = self._offered[found[0]]
            if not any(form.displayed for form in forms):
                self._count({"displayed": 1})
            found[1].displayed = True

    def change(self, uri: str, old: str, new: str) -> None:
        """Follows the suggestions of a document through a change from `old` to `new`."""
        self.settle()
        standing = [one for one in self._standing if one.uri == uri]
        if standing:
            changed = TextChange.between(old, new)
            for one in standing:
                one.start, one.end = changed.moved(one.start, one.end)
                one.text = new
        if uri not in self._offered:
            return
        standing_forms = [form for form in self._offered[uri] if form.num_typed(new) is not None]
        if not standing_forms:
            self._end(uri)
            return
        self._offered[uri] = standing_forms
        for form in standing_forms:
            typed = form.num_typed(new) or 0
            piece, form.typed = typed - form.typed, typed
            if piece >= _MIN_PIECE_CHARS:
                # A client may have reported this piece already.
                form.pieces = min(form.pieces + piece, typed)
            if typed == len(form.inserted) and (piece >= _MIN_PIECE_CHARS or form.accepted):
                self._take(uri, form, new)
                return

    def close(self, uri: str) -> None:
        """Drops the suggestions of a document that is closed; those not compared by now are not counted as kept."""
        self.settle()
        self._end(uri)
        self._standing = [one for one in self._standing if one.uri != uri]

    def end(self) -> None:
        """Ends all suggestions: the window is closed."""
        for uri in list(self._offered):
            self._end(uri)
        self.settle()

    def settle(self) -> None:
        """Compares the suggestions that are due. A late call does no harm: it comes before every change."""
        now = self._clock()
        for one in self._standing:
            while one.due_s and now - one.accepted_s >= one.due_s[0]:
                self._count_kept(one, one.due_s.pop(0))
        self._standing = [one for one in self._standing if one.due_s][-_MAX_STANDING:]

    def _find(self, number: int) -> tuple[str, _Offered] | None:
        """Returns the document and the form of that number; None where it can no longer be accepted."""
        return next(
            ((uri, form) for uri, forms in self._offered.items() for form in forms if form.number == number), None
        )

    def _count_kept(self, one: _Standing, after_s: int) -> None:
        characters, kept = len(one.inserted), num_kept(one.inserted, one.text[one.start : one.end])
        self._count(
            {
                f"judged_{after_s}_s": 1,
                f"kept_{after_s}_s": int(2 * kept >= characters),
                f"characters_judged_{after_s}_s": characters,
                f"characters_kept_{after_s}_s": kept,
            }
        )

    def _new(self, text: str, completion: Completion) -> _Offered:
        inserted, near = completion.inserted, max(0, completion.cursor - _CHARS_NEAR)
        self._last_number += 1
        return _Offered(
            number=self._last_number,
            before=completion.lead,
            # Editors insert a document's own line ends.
            inserted=inserted.replace("\n", "\r\n") if "\r\n" in text[near : near + 2 * _CHARS_NEAR] else inserted,
            # A selected entry of the menu is longer than what stands left of the cursor now.
            cursor=completion.start + len(completion.lead),
            tail=len(text) - completion.end,
            rest=text[completion.cursor : completion.cursor + _CHARS_COMPARED],
            num_rest=len(text) - completion.cursor,
        )

    def _take(self, uri: str, offered: _Offered, text: str) -> None:
        """Counts the suggestion as accepted in one of its forms; all of it stands in `text`."""
        del self._offered[uri]
        self._count({"accepted": 1, "characters_accepted": len(offered.inserted)})
        self._standing.append(
            _Standing(
                uri=uri,
                inserted=offered.inserted,
                text=text,
                start=offered.cursor,
                end=offered.cursor + len(offered.inserted),
                accepted_s=self._clock(),
                due_s=list(JUDGED_AFTER_S),
            )
        )

    def _end(self, uri: str) -> None:
        """Counts what was accepted of a suggestion that can no longer be accepted."""
        forms = self._offered.pop(uri, [])
        offered = max(forms, key=lambda form: (form.accepted, form.pieces), default=None)
        if offered is not None and (offered.accepted or offered.pieces):
            whole = offered.accepted
            characters = len(offered.inserted) if whole else offered.pieces
            self._count({"accepted" if whole else "partly_accepted": 1, "characters_accepted": characters})


def _is_same(old: _Offered, new: _Offered) -> bool:
    """Whether accepting either of them gives the same text."""
    same_line = old.before + old.inserted == new.before + new.inserted
    return same_line and old.cursor - len(old.before) == new.cursor - len(new.before) and old.tail == new.tail


def num_kept(inserted: str, now: str) -> int:
    """Returns how many characters of `inserted` still stand in `now`.

    Args:
        inserted: as it was accepted.
        now: the text in its place.
    """
    if not inserted or inserted in now[: _MOST_SEARCHED * _MAX_CHARS + len(inserted)]:
        return len(inserted)
    looked_at = inserted[:_MAX_CHARS]
    matcher = difflib.SequenceMatcher(None, looked_at, now[: 2 * _MAX_CHARS], autojunk=False)
    shortest = min(_MIN_RUN, len(inserted))
    kept = sum(block.size for block in matcher.get_matching_blocks() if block.size >= shortest)
    return round(kept * len(inserted) / len(looked_at))
