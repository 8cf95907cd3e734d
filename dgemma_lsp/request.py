"""One question from an editor or a command line, and the completions that answer it, free of protocol types.

Where an entry of the editor's completion menu is selected, the engine is asked about the text with the entry accepted;
the answer replaces what the entry would replace, and begins with the entry's text. Pure. The engine has shaped the
texts of its answer; here they get their place: one line only, from its start to the cursor plus what the completion
covers of the rest, which every client draws without flicker.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Self

from dgemma_engine.protocol.messages import Extent, Infill

# The part of a line that an item repeats is at most twice as long.
_LEAD_CHARS = 1_000
# More than any reader of the text around a cursor takes.
_CHARS_EACH_SIDE = 131_072
# The cuts stay where they are while a word is typed.
_CUT_EVERY_CHARS = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """The part of a document near a cursor: the cost of a request does not grow with the document.

    Attributes:
        text: the part: all of a document with at most 128 Ki characters before and after the cursor.
        offset: the cursor, in code points from the start of `text`.
        skipped: characters of the document before `text`.
        beyond: characters of the document after `text`.
    """

    text: str
    offset: int
    skipped: int
    beyond: int

    @classmethod
    def of(cls, document: str, start: int, end: int, *, between: str | None = None) -> Self:
        """Returns the part near [start, end).

        Args:
            document: a whole text.
            start: the cursor, in code points.
            end: not before `start`.
            between: stands in place of [start, end), and the cursor after it; None keeps the text.
        """
        skipped, beyond = (
            max(0, num_chars - _CHARS_EACH_SIDE) // _CUT_EVERY_CHARS * _CUT_EVERY_CHARS
            for num_chars in (start, len(document) - end)
        )
        text = document[skipped : len(document) - beyond]
        if between is None:
            return cls(text=text, offset=start - skipped, skipped=skipped, beyond=beyond)
        before = text[: start - skipped] + between
        return cls(text=before + text[end - skipped :], offset=len(before), skipped=skipped, beyond=beyond)


class Trigger(Enum):
    """What made the editor ask."""

    INVOKED = 1
    AUTOMATIC = 2


class Channel(Enum):
    """Where the answer is shown; a document's newest request of one channel wins."""

    GHOST_TEXT = "ghost text"
    MENU = "menu"
    FILL = "fill"
    PREVIEW = "preview"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """The entry that is selected in the editor's completion menu, not accepted yet.

    Attributes:
        start: offset in the request's text of what it would replace; on the cursor's line, not after the cursor.
        end: offset after that; on the cursor's line, not before the cursor.
        text: what it would put there.
    """

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request.

    Attributes:
        uri: names the document.
        version: the document's version that `text` is part of.
        text: the text around the cursor, its line ends untouched; all of it unless a part is left out at its ends.
        offset: the cursor, in code points from the start of `text`.
        path: the file's path for the model to see; may be empty.
        language: LSP language id; may be empty.
        trigger: what made the editor ask.
        channel: where the answer is shown.
        deadline_ms: milliseconds until an answer is due.
        selected: the menu's entry that an answer has to extend; None for none.
        above: what the model reads before `text`: the cells before this one of a notebook.
        below: likewise after it.
        skipped: characters of the document before `text`.
        beyond: characters of the document after `text`.
        extent: how far the answer may reach; None derives it from the text around the cursor.
        least_column: of a fill, the least column of its lines below the first; -1 is that of the block it begins in.
        speculative: whether the answer is prepared before the editor asks for it.
        folder: absolute path of the folder that the document is in, by which the engine finds the adapter of its
            repository; empty where there is none.
    """

    uri: str
    version: int
    text: str
    offset: int
    path: str = ""
    language: str = ""
    trigger: Trigger = Trigger.INVOKED
    channel: Channel = Channel.GHOST_TEXT
    deadline_ms: float = 3_000.0
    selected: Selected | None = None
    above: str = ""
    below: str = ""
    skipped: int = 0
    beyond: int = 0
    extent: Extent | None = None
    least_column: int = -1
    speculative: bool = False
    folder: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.offset <= len(self.text):
            raise ValueError(f"{self.offset=} must be between 0 and the text's length, {len(self.text)}")
        if self.selected and not (
            self.line_start <= self.selected.start <= self.offset <= self.selected.end <= self.line_end
        ):
            raise ValueError(f"{self.selected.start=} and {self.selected.end=} must hold the cursor on its line")

    def is_about(self, version: int, document: str) -> bool:
        """Whether the request has this version and text of its document; a client may count versions wrongly."""
        if version != self.version or len(document) != self.skipped + len(self.text) + self.beyond:
            return False
        return document == self.text or document.startswith(self.text, self.skipped)

    @property
    def key(self) -> str:
        """Key under which the newest request of an editor cancels the older one."""
        return self.uri if self.channel is Channel.GHOST_TEXT else f"{self.uri}#{self.channel.value}"

    @property
    def cursor(self) -> int:
        """The cursor, in code points from the start of the document."""
        return self.skipped + self.offset

    @property
    def line_start(self) -> int:
        """Offset of the first character of the cursor's line, or of `text` where the line begins before it."""
        start = self.text.rfind("\n", 0, self.offset) + 1
        return self.text.rfind("\r", start, self.offset) + 1 or start

    @property
    def line_end(self) -> int:
        """Offset after the last character of the cursor's line in `text`, its line end left out."""
        end = self.text.find("\n", self.offset)
        end = len(self.text) if end < 0 else end
        carriage_return = self.text.find("\r", self.offset, end)
        return end if carriage_return < 0 else carriage_return

    @property
    def before(self) -> str:
        """The cursor's line, left of the cursor."""
        return self.text[self.line_start : self.offset]

    @property
    def rest(self) -> str:
        """The cursor's line, right of the cursor."""
        return self.text[self.offset : self.line_end]


def as_if_accepted(request: Request) -> Request:
    """Returns the request with the selected entry accepted; the request itself where none is selected."""
    selected = request.selected
    if selected is None:
        return request
    return replace(
        request,
        text=request.text[: selected.start] + selected.text + request.text[selected.end :],
        offset=selected.start + len(selected.text),
        selected=None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Text to show, where it goes, and for which version of the document it holds.

    Attributes:
        lead: replaces what stands between `start` and the cursor: the same again, or the selected entry of the menu.
        inserted: what follows the cursor; line ends are `\n`.
        start: offset in the document of the line's start (in a very long line, of a place in it), or of what the
            selected entry replaces, in code points.
        cursor: offset of the cursor.
        end: offset after the covered part of the line's rest.
        version: the document's version that the offsets hold for.
    """

    lead: str
    inserted: str
    start: int
    cursor: int
    end: int
    version: int

    def __post_init__(self) -> None:
        if not self.start <= self.cursor <= self.end:
            raise ValueError(f"{self.start=} <= {self.cursor=} <= {self.end=} must hold")

    @property
    def text(self) -> str:
        """What replaces the span."""
        return self.lead + self.inserted


def build_completions(request: Request, infill: Infill) -> tuple[Completion, ...]:
    """Returns what to show at the cursor, best first: at most one unless the user asked for it.

    Args:
        request: the question, with the text it was asked about.
        infill: the engine's answer to it; one without a text offers nothing.
    """
    texts = {infill.text: infill.covered} if infill.text else {}
    if infill.text and request.trigger is Trigger.INVOKED:
        texts |= {candidate.text: candidate.covered for candidate in infill.candidates}
    return tuple(completion_at(request, text, covered) for text, covered in texts.items())


def completion_at(request: Request, inserted: str, covered: int) -> Completion:
    """Returns the completion that inserts a text at the cursor, after the menu's selected entry where there is one.

    Args:
        request: the question.
        inserted: text to insert.
        covered: characters right of the cursor that it replaces.
    """
    selected, skipped = request.selected, request.skipped
    start = selected.start if selected else request.line_start
    if selected is None and request.offset - start >= 2 * _LEAD_CHARS:
        # In a very long line near the cursor, or all of a minified file would go to the editor with every item; and at
        # the same place while a few words are typed. Counted from the document's start: the line's may be far outside.
        start = max(start, (request.cursor // _LEAD_CHARS - 1) * _LEAD_CHARS - skipped)
    return Completion(
        lead=selected.text if selected else request.text[start : request.offset],
        inserted=inserted,
        start=skipped + start,
        cursor=request.cursor,
        end=skipped + (selected.end if selected else request.offset) + covered,
        version=request.version,
    )
