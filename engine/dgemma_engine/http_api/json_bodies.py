"""JSON of clients -> values; half a surrogate pair, cut by a client that counts UTF-16, does not fail the request."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

_Value = TypeVar("_Value")
# Escapes one after another, so that a backslash that is itself escaped begins none: a pair, a half, any other.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


def decoded(body: bytes, kind: type[_Value]) -> _Value:
    """Returns a body as a value of a type; half of a surrogate pair is read as U+FFFD.

    Raises:
        msgspec.ValidationError: it is JSON of another type.
        msgspec.DecodeError: it is no JSON.
        UnicodeDecodeError: it is no UTF-8.
        RecursionError: it is nested too deep.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        mended = _ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], body)
        if mended == body:
            raise
        return msgspec.json.decode(mended, type=kind)
