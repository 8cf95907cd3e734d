"""Strings, comments and brackets as each language spells them, and the unpaired ones of a text.

Pure. A table of languages, looked up by LSP language id, and one reading of a text by it; no grammar. A language that
is not in the table is read as most are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class Language:
    """One language.

    Attributes:
        comment: begins a comment that ends with its line; empty for none.
        block_comment: regular expressions of what begins and ends a comment that may span lines; empty for none.
        quotes: characters that delimit strings within one line.
        long_quotes: delimiters of strings that may span lines.
        quotes_anywhere: whether a quote begins a string wherever it stands; off means only where a value can begin, so
            that an apostrophe does not.
        has_brackets: whether brackets need their partner; off for prose, where `:)` is a smiley.
        needs_semicolons: whether a statement that is not a block ends with one.
        ends_with_line: whether a line that leaves no bracket open and ends with no operator is a whole statement.
        is_data: whether the text has values only, so that all of one block stand in one column.
        has_depth: whether the line above determines a line's indentation; off where the author decides, as in a list.
        indents_blocks: whether a block is what is indented deeper, so that nothing closes it.
        block_opener: regular expression found at the end of a line (comment and blanks taken off) that opens a block.
    """

    comment: str = ""
    block_comment: tuple[str, str] | None = None
    quotes: str = "\"'"
    long_quotes: tuple[str, ...] = ()
    quotes_anywhere: bool = True
    has_brackets: bool = True
    needs_semicolons: bool = False
    ends_with_line: bool = False
    is_data: bool = False
    has_depth: bool = True
    indents_blocks: bool = False
    block_opener: str = r"[({\[]"

    @cached_property
    def pieces(self) -> re.Pattern[str]:
        """Matches, as the groups of these names, `comment`, `string` (maybe without its end) and `bracket`."""
        comments = [re.escape(self.comment) + r"[^\n]*"] if self.comment else []
        if self.block_comment:
            begin, end = self.block_comment
            comments.append(rf"{begin}[\s\S]*?(?:{end}|\Z)")
        strings = [
            rf"{long}[^{long[0]}\\]*(?:(?:\\[\s\S]|(?!{long}){long[0]})[^{long[0]}\\]*)*(?:{long})?"
            for long in self.long_quotes
        ]
        anywhere = "" if self.quotes_anywhere else r"(?<![^\s(\[{,:=])"
        strings += [rf"{anywhere}{quote}(?:\\[\s\S]|[^{quote}\\\n])*{quote}?" for quote in self.quotes]
        groups = {"comment": comments, "string": strings, "bracket": [r"[()\[\]{}]"] if self.has_brackets else []}
        named = "|".join(f"(?P<{name}>{'|'.join(forms)})" for name, forms in groups.items() if forms)
        return re.compile(named or r"(?!)")

    @cached_property
    def signs(self) -> re.Pattern[str]:
        """Matches the characters that `pieces` can begin with; looking for them first is ten times as fast."""
        first = {"()[]{}" if self.has_brackets else "", self.comment[:1], self.quotes}
        first.update(quote[0] for quote in self.long_quotes)
        first.add(self.block_comment[0][0] if self.block_comment else "")
        return re.compile(f"[{re.escape(''.join(first))}]" if any(first) else r"(?!)")

    @cached_property
    def text_signs(self) -> re.Pattern[str]:
        """Matches what strings and comments begin with."""
        begins = [*map(re.escape, filter(None, [self.comment, *self.quotes, *self.long_quotes]))]
        begins += [self.block_comment[0]] if self.block_comment else []
        return re.compile("|".join(begins) or r"(?!)")

    @cached_property
    def opener(self) -> re.Pattern[str]:
        """`block_opener`, at the end of a line."""
        return re.compile(rf"(?:{self.block_opener})\Z")


_C_COMMENT = (r"/\*", r"\*/")
# The first `case` of a line, whatever stands between that and the colon at its end; read once only.
_CASE = r"\A(?>.*?\bcase\b).*+(?<=:)"
_C = Language(
    comment="//",
    block_comment=_C_COMMENT,
    needs_semicolons=True,
    block_opener=rf"[({{\[]|{_CASE}|\b(?:default\s*+|public|private|protected):",
)
_JAVASCRIPT = Language(
    comment="//",
    block_comment=_C_COMMENT,
    long_quotes=("`",),
    block_opener=rf"[({{\[]|{_CASE}|\bdefault\s*+:",
)
_PROSE = Language(quotes="", has_brackets=False, has_depth=False, block_opener=r"(?!)")
# Python's words that a line begins with when its colon opens a block; `x: int` and `lambda:` begin with others.
_PYTHON_BLOCK = r"^\s*(?:(?:async|case|class|def|elif|else|except|finally|for|if|match|try|while|with)\b|[)\]}]).*:"

_LANGUAGES = {
    "c": _C,
    "cpp": _C,
    "go": Language(
        comment="//",
        ends_with_line=True,
        block_comment=_C_COMMENT,
        long_quotes=("`",),
        block_opener=rf"[({{\[]|{_CASE}|\bdefault\s*+:",
    ),
    "html": Language(
        block_comment=("<!--", "-->"),
        quotes="",
        has_brackets=False,
        has_depth=False,
        # An element that holds something; `<br>` and the like hold nothing.
        block_opener=r"<(?!/|!|(?:area|base|br|col|embed|hr|img|input|link|meta|source|track|wbr)\b)[^<>]*(?<!/)>",
    ),
    "java": _C,
    "javascript": _JAVASCRIPT,
    "javascriptreact": _JAVASCRIPT,
    "json": Language(quotes='"', is_data=True),
    "markdown": Language(quotes="", has_brackets=False, has_depth=False, block_opener=r"^\s*(?:```|~~~)\s*\S+"),
    "plaintext": _PROSE,
    "python": Language(
        comment="#",
        long_quotes=('"""', "'''"),
        ends_with_line=True,
        indents_blocks=True,
        block_opener=rf"[({{\[]|{_PYTHON_BLOCK}",
    ),
    # Lifetimes begin with an apostrophe; a bracket as a character is seldom.
    "rust": Language(comment="//", block_comment=_C_COMMENT, quotes='"'),
    "shellscript": Language(comment="#", block_opener=r"[({\[]|\b(?:then|do|else)"),
    "typescript": _JAVASCRIPT,
    "typescriptreact": _JAVASCRIPT,
    "yaml": Language(
        comment="#", quotes_anywhere=False, has_depth=False, indents_blocks=True, block_opener=r"[({\[]|:"
    ),
}
_OTHER = Language(long_quotes=("`",), block_opener=r"[({\[]|:")


def language_named(language_id: str) -> Language:
    """Returns the entry of a language.

    Args:
        language_id: as LSP spells it; one that is not known, or empty, gets what most languages share.
    """
    return _LANGUAGES.get(language_id, _OTHER)


CLOSER_OF = {"(": ")", "[": "]", "{": "}"}
OPENER_OF = {closer: opener for opener, closer in CLOSER_OF.items()}
_BRACKETS = "()[]{}"
SIGNS = _BRACKETS + "\"'`"
"""Brackets and quotes: one takes as long to read as 100 other characters."""

_QUOTES = frozenset("\"'`")


class Bracket(NamedTuple):
    """A bracket whose partner stands outside the text that was read; `offset` counts from that text's start."""

    sign: str
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The unpaired brackets and delimiters of a text.

    Attributes:
        closing: brackets that close what was opened before the text, in order.
        opening: brackets that the text does not close, the outermost first.
        inside: the delimiter of the string, or the beginning of the comment, that the text ends in; empty for neither.
        inside_from: where that begins, if any.
    """

    closing: tuple[Bracket, ...]
    opening: tuple[Bracket, ...]
    inside: str = ""
    inside_from: int = 0


def read(text: str, language: Language) -> Reading:
    """Returns what `text`, which must not begin inside a string or a comment, leaves unpaired."""
    closing: list[tuple[str, int]] = []
    opening: list[tuple[str, int]] = []
    num_open = dict.fromkeys(CLOSER_OF, 0)
    brackets = _BRACKETS if language.has_brackets else ""
    search, match = language.signs.search, language.pieces.match
    inside, inside_from = "", 0
    end = 0
    while (sign := search(text, end)) is not None:
        start, said = sign.start(), sign.group()
        if said not in brackets:
            piece = match(text, start)
            end = piece.end() if piece else sign.end()
            if piece and end == len(text) and not _is_whole(piece.group(), language):
                inside, inside_from = _delimiter(piece.group(), language), start
            continue
        end = start + 1
        if said in CLOSER_OF:
            opening.append((said, start))
            num_open[said] += 1
        elif num_open[OPENER_OF[said]]:
            closed = ""
            while closed != OPENER_OF[said]:
                closed = opening.pop()[0]
                num_open[closed] -= 1
        else:
            closing.append((said, start))
    return Reading(
        closing=tuple(map(Bracket._make, closing)),
        opening=tuple(map(Bracket._make, opening)),
        inside=inside,
        inside_from=inside_from,
    )


def lines_inside(text: str, language: Language) -> list[tuple[int, int]]:
    """Returns where strings and comments that hold a line end start and end; read in one pass, as `read` does."""
    spans: list[tuple[int, int]] = []
    end = 0
    while (sign := language.text_signs.search(text, end)) is not None:
        piece = language.pieces.match(text, sign.start())
        end = piece.end() if piece else sign.end()
        if piece and text.find("\n", piece.start(), end) >= 0:
            spans.append((piece.start(), end))
    return spans


def _delimiter(piece: str, language: Language) -> str:
    """Returns what a string or comment begins with."""
    longer = [*language.long_quotes, language.comment]
    return next((sign for sign in longer if sign and piece.startswith(sign)), piece[0])


def _is_whole(piece: str, language: Language) -> bool:
    """Whether a string or comment at the end of a text has its end; a comment that ends with its line never has."""
    if language.comment and piece.startswith(language.comment):
        return False
    if piece[0] in _QUOTES:
        delimiter = _delimiter(piece, language)
        return len(piece) >= 2 * len(delimiter) and piece.endswith(delimiter) and not _escapes_end(piece)
    return piece.endswith(("*/", "-->"))


def _escapes_end(piece: str) -> bool:
    bare = piece[:-1].rstrip("\\")
    return (len(piece) - 1 - len(bare)) % 2 == 1
