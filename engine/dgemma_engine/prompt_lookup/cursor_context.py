"""A document, cut at the cursor and at the ends of the cursor's line.

Turns a `Context` into strings; knows no lexemes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from dgemma_engine.prompt_lookup.lexer import MAX_LINE_CHARACTERS
from dgemma_engine.protocol.messages import Context

# The breaks of `str.splitlines`: a middle of one line must have none of them.
_BREAK = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_LINE_END = re.compile("\r\n|\n|\r")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A document, cut at the cursor.

    Attributes:
        above: whole lines above the cursor's.
        before: the cursor's line up to the cursor.
        rest: the cursor's line behind the cursor; its beginning only if it is very long.
        below: whole lines below the cursor's.
        line_break: what the document ends its lines with.
    """

    above: str
    before: str
    rest: str
    below: str
    line_break: str

    @classmethod
    def of(cls, context: Context) -> Self | None:
        """Cuts at line breaks; None where the cursor's line is too long to be worth reading."""
        prefix, suffix = context.prefix, context.suffix
        last = (prefix[-MAX_LINE_CHARACTERS:].splitlines(keepends=True) or [""])[-1]
        before = "" if _BREAK.search(last) else last
        if len(before) == MAX_LINE_CHARACTERS:
            return None
        end = _BREAK.search(suffix)
        line_break = _LINE_END.search(prefix) or _LINE_END.search(suffix)
        return cls(
            above=prefix[: len(prefix) - len(before)],
            before=before,
            rest=suffix[: min(end.start() if end else len(suffix), MAX_LINE_CHARACTERS)],
            below=suffix[end.end() :] if end else "",
            line_break=line_break.group() if line_break else "\n",
        )
