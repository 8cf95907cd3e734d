"""Bytes of the base protocol, right and wrong: bodies to frames, and what a server writes to messages."""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import Any

_LENGTH = re.compile(rb"content-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)

# Read as a message or as part of the frame before it: nothing may depend on it. Longer than what a wrong length takes.
SACRIFICE = {"jsonrpc": "2.0", "method": "$/chaos/lost", "params": {"padding": "." * 64}}


class Header(Enum):
    """Spellings of a header that every server must read."""

    PLAIN = "Content-Length: {n}\r\n"
    LOWER = "content-length: {n}\r\n"
    UPPER = "CONTENT-LENGTH: {n}\r\n"
    NO_SPACE = "Content-Length:{n}\r\n"
    TYPED = "Content-Length: {n}\r\nContent-Type: application/vscode-jsonrpc; charset=utf-8\r\n"
    TYPED_FIRST = "Content-Type: application/vscode-jsonrpc; charset=utf8\r\nContent-Length: {n}\r\n"
    UNKNOWN = "X-Chaos: 1\r\nContent-Length: {n}\r\n"


class BadFrame(Enum):
    """Frames that no client should send; the message after them must be read again."""

    NOT_JSON = "not json"
    NOT_UTF8 = "not utf-8"
    CUT_JSON = "cut json"
    NUMBER = "number"
    NULL = "null"
    STRING = "string"
    EMPTY_ARRAY = "empty array"
    EMPTY_OBJECT = "empty object"
    DEEP = "deep"
    EMPTY = "empty"
    NEGATIVE = "negative length"
    NO_NUMBER = "no number"
    SHORT = "short length"
    SHORTER = "much too short length"
    LONG = "long length"
    NO_HEADER = "no header"


_BODIES = {
    BadFrame.NOT_JSON: b"{nothing",
    BadFrame.NOT_UTF8: b'{"jsonrpc":"2.0","method":"\xff\xfe"}',
    BadFrame.CUT_JSON: b'{"jsonrpc":"2.0","method":"$/cha',
    BadFrame.NUMBER: b"7",
    BadFrame.NULL: b"null",
    BadFrame.STRING: b'"method"',
    BadFrame.EMPTY_ARRAY: b"[]",
    BadFrame.EMPTY_OBJECT: b"{}",
    BadFrame.DEEP: b"[" * 20_000 + b"]" * 20_000,
    BadFrame.EMPTY: b"",
}


def encode(message: Any) -> bytes:
    """Returns the body of a message."""
    return json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")


def frame(body: bytes, header: Header = Header.PLAIN) -> bytes:
    """Returns a body with its header."""
    return header.value.format(n=len(body)).encode() + b"\r\n" + body


def bad_frame(kind: BadFrame) -> bytes:
    """Returns a wrong frame, followed by `SACRIFICE` where its length is wrong."""
    if kind in _BODIES:
        return frame(_BODIES[kind])
    body, lost = encode({"jsonrpc": "2.0", "method": "$/chaos/wrong"}), frame(encode(SACRIFICE))
    lengths = {
        BadFrame.NEGATIVE: "Content-Length: -5\r\n\r\n",
        BadFrame.NO_NUMBER: "Content-Length: many\r\n\r\n",
        BadFrame.SHORT: f"Content-Length: {len(body) - 1}\r\n\r\n",
        BadFrame.SHORTER: "Content-Length: 3\r\n\r\n",
        BadFrame.LONG: f"Content-Length: {len(body) + 9}\r\n\r\n",
        BadFrame.NO_HEADER: "",
    }
    return lengths[kind].encode() + body + lost


class FrameReader:
    """Splits what a server writes into messages.

    Attributes:
        rest: bytes of an incomplete frame.
    """

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Returns the messages that are complete.

        Raises:
            ValueError: the bytes are no frame of a JSON object.
        """
        self.rest += data
        messages: list[dict[str, Any]] = []
        while (end := self.rest.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self.rest, 0, end + 2)
            if found is None:
                raise ValueError(f"a header without a length: {self.rest[:80]!r}")
            start = end + 4
            stop = start + int(found.group(1))
            if len(self.rest) < stop:
                break
            message = json.loads(self.rest[start:stop])
            if not isinstance(message, dict):
                raise ValueError(f"a body that is no object: {message!r}")
            messages.append(message)
            self.rest = self.rest[stop:]
        return messages
