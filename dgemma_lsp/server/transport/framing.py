"""A stream of bytes -> bodies of messages. Pure.

A header line of a body looks like `Content-Length: 5`; the name may be in upper or lower case. After a wrong length the
next header is searched for. That is safe, because JSON contains no header: a line end within a text is written `\\n`.
"""

from __future__ import annotations

import re
from collections.abc import Generator

_PATTERN = rb"(?<!-)content-length[ \t]*+:[ \t]*+(\d{1,15})[ \t]*+\r?\n"
_HEADER = re.compile(_PATTERN, re.IGNORECASE)
# A further header, or the empty line before a body; the line end before that line is kept for it.
_NEXT = re.compile(_PATTERN + rb"|\n[ \t\r\v\f]*+\n", re.IGNORECASE)
# More than any such line has.
_MOST_HEADER_BYTES = 80


class Framing:
    """Splits one stream into bodies."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._length: int | None = None
        self._in_body = False
        self._num_searched = 0

    def feed(self, data: bytes) -> Generator[bytes]:
        """Yields each body that is complete with these bytes.

        Args:
            data: what came since the last call, of any length.
        """
        self._bytes += data
        while (body := self._body() if self._in_body else self._after_headers()) is not None:
            if body:
                yield body

    def _after_headers(self) -> bytes | None:
        """Reads header lines; returns None where more bytes are needed, and nothing where a body begins."""
        while found := (_HEADER if self._length is None else _NEXT).search(self._bytes):
            if found[1]:
                self._length = int(found[1])
                self._drop(found.end() - 1)
            else:
                self._drop(found.end())
                self._in_body = True
                return b""
        # Not the next header: of a line without an end, no more is kept than a header has.
        self._drop(len(self._bytes) - _MOST_HEADER_BYTES)
        return None

    def _body(self) -> bytes | None:
        """Returns a body; None where more bytes are needed. Whatever its announced length, it ends at a header."""
        assert self._length is not None
        start = max(self._num_searched - _MOST_HEADER_BYTES, 0)
        if found := _HEADER.search(self._bytes, start, min(self._length, len(self._bytes))):
            return self._take(found.start())
        if len(self._bytes) < self._length:
            self._num_searched = len(self._bytes)
            return None
        return self._take(self._length)

    def _take(self, num_bytes: int) -> bytes:
        # A length that is too large by few bytes ends within the next header, which is read again.
        end = max(self._bytes.rfind(b"}", 0, num_bytes), self._bytes.rfind(b"]", 0, num_bytes)) + 1 or num_bytes
        body = bytes(self._bytes[:end])
        self._drop(end)
        self._in_body, self._length = False, None
        return body

    def _drop(self, num_bytes: int) -> None:
        del self._bytes[: max(num_bytes, 0)]
        self._num_searched = 0
