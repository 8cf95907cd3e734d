"""Text without its string literals, by their quotes alone. For any language."""

from __future__ import annotations

import re
from collections.abc import Mapping

_QUOTE = re.compile(r"[\"'`]")

STRINGS_IN_LINE: Mapping[str, re.Pattern[str]] = {quote: re.compile(rf"(?:\\.|[^{quote}\\\n])*+") for quote in "\"'`"}
"""What stands between a quote and its partner on the same line."""

STRINGS_OVER_LINES: Mapping[str, re.Pattern[str]] = {quote: re.compile(rf"(?:\\.|[^{quote}\\])*+") for quote in "\"'`"}
"""The same on any line."""


def without_strings(text: str, inside: Mapping[str, re.Pattern[str]] = STRINGS_IN_LINE) -> str:
    """Returns `text` without its strings; a quote that ends no string stays.

    Between a quote without partner and the end of the search for it, no quote of its kind has one: none of those is
    searched again.

    Args:
        text: any.
        inside: by quote, what may stand between it and its partner.
    """
    kept: list[str] = []
    start = at = 0
    unclosed_to = dict.fromkeys(inside, 0)
    while sign := _QUOTE.search(text, at):
        quote, begin = sign.group(), sign.start()
        at = begin + 1
        if begin < unclosed_to[quote]:
            continue
        said = inside[quote].match(text, at)
        end = said.end() if said else at
        if text.startswith(quote, end):
            kept.append(text[start:begin])
            start = at = end + 1
        else:
            unclosed_to[quote] = end
    return "".join([*kept, text[start:]])
