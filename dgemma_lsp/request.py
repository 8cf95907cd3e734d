"""One question from an editor or a command line, free of protocol types: which text, where in it, and by when."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

# What an item repeats of its line is at most twice as long.
_LEAD_CHARS = 1_000


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
        start: offset of what it would replace; on the cursor's line, not behind the cursor.
        end: offset behind that; on the cursor's line, not before the cursor.
        text: what it would put there.
    """

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question.

    Attributes:
        uri: names the document.
        version: the document's version that `text` is.
        text: the whole text, its line ends untouched.
        offset: the cursor, in code points from the start of `text`.
        path: the file's path for the model to see; may be empty.
        language: LSP language id; may be empty.
        trigger: what made the editor ask.
        channel: where the answer is shown.
        deadline_ms: milliseconds until an answer is due.
        selected: what an answer has to extend; None for nothing.
        above: what the model sees before `text`: the cells before this one of a notebook.
        below: likewise after it.
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

    def __post_init__(self) -> None:
        if not 0 <= self.offset <= len(self.text):
            raise ValueError(f"{self.offset=} must be between 0 and the text's length, {len(self.text)}")
        if self.selected and not (
            self.line_start <= self.selected.start <= self.offset <= self.selected.end <= self.line_end
        ):
            raise ValueError(f"{self.selected.start=} and {self.selected.end=} must hold the cursor on its line")

    @property
    def key(self) -> str:
        """Under which the newest request wins."""
        return self.uri if self.channel is Channel.GHOST_TEXT else f"{self.uri}#{self.channel.value}"

    @property
    def line_start(self) -> int:
        """Offset of the first character of the cursor's line."""
        start = self.text.rfind("\n", 0, self.offset) + 1
        return self.text.rfind("\r", start, self.offset) + 1 or start

    @property
    def line_end(self) -> int:
        """Offset behind the last character of the cursor's line, its line end left out."""
        end = self.text.find("\n", self.offset)
        end = len(self.text) if end < 0 else end
        carriage_return = self.text.find("\r", self.offset, end)
        return end if carriage_return < 0 else carriage_return

    @property
    def lead_start(self) -> int:
        """Offset from which on an item replaces what stands left of the cursor: the line's start.

        In a very long line it is near the cursor, and stays where it is while a few words are typed: all of a minified
        file would otherwise go to the editor with every item.
        """
        start = self.line_start
        return start + max(0, (self.offset - start) // _LEAD_CHARS - 1) * _LEAD_CHARS

    @property
    def before(self) -> str:
        """The cursor's line, left of the cursor."""
        return self.text[self.line_start : self.offset]

    @property
    def rest(self) -> str:
        """The cursor's line, right of the cursor."""
        return self.text[self.offset : self.line_end]
