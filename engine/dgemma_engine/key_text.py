"""Bytes of a file of keys -> its lines, in the encodings that shells and editors write. Pure."""

from __future__ import annotations

import codecs

# The longer marks first: that of UTF-16 is the beginning of one of UTF-32.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)
_NO_TEXT = "it is not text in UTF-8 or in UTF-16 with a byte order mark; write it again, in PowerShell with Set-Content"


def encoding_of(content: bytes) -> str:
    """Returns the name of the encoding that a text's byte order mark tells; UTF-8 where it has none."""
    return next((encoding for mark, encoding in _MARKS if content.startswith(mark)), "utf-8")


def key_lines(content: bytes, *, num_missing: int = 0) -> list[str]:
    """Returns the lines of a text.

    Args:
        content: the beginning of the text, or all of it.
        num_missing: bytes that follow: where there are any, half a character at the end is left out.

    Raises:
        ValueError: it is not text; the message says so, as a reason in brackets.
    """
    decoder = codecs.getincrementaldecoder(encoding_of(content))()
    try:
        text = decoder.decode(content, final=not num_missing).removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise ValueError(_NO_TEXT) from None
    if "\0" in text:
        raise ValueError(_NO_TEXT)
    return text.splitlines()
