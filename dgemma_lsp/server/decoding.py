"""The body of a message -> decoded JSON, whatever its numbers and depth, so that a request keeps its id; and decoded
JSON -> the objects and exceptions of pygls. Pure.

Python refuses numbers of more than 4,300 digits and values nested about a thousand deep, though both are JSON.
"""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any, TypeGuard, cast

from dgemma_engine.path_style import HERE, PathStyle
from pygls.exceptions import JsonRpcException

Id = int | str

# Deeper than any message of the protocol, and far below Python's limit.
_MOST_DEPTH = 200
_MOST_DIGITS = 400
_MOST_URI_DEPTH = 20
# Keys whose value is a URI: of documents, notebooks, cells and folders.
_URI_KEYS = {"uri", "document", "rootUri"}
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def decoded(body: bytes, style: PathStyle = HERE) -> tuple[Any, bool]:
    """Returns a decoded message, and whether it is whole: values nested more than 200 deep are replaced by null.

    Each document has one URI from here on, however the editor spells its drive in one message and another.

    Args:
        body: JSON.
        style: of the system's paths.

    Raises:
        ValueError: the body is not JSON.
    """
    message, is_whole = _decoded(body)
    return message if style is PathStyle.POSIX else _with_one_spelling(message, style), is_whole


def _decoded(body: bytes) -> tuple[Any, bool]:
    try:
        return json.loads(body, parse_int=_to_number), True
    except RecursionError:
        pass
    try:
        return json.loads(_shallow(body.decode()), parse_int=_to_number), False
    except RecursionError:
        raise ValueError("brackets that are never closed") from None


def _with_one_spelling(value: Any, style: PathStyle, depth: int = 0) -> Any:
    """Returns decoded JSON with one spelling for each URI; the protocol has none in deeper values."""
    if depth > _MOST_URI_DEPTH:
        return value
    if isinstance(value, list):
        return [_with_one_spelling(one, style, depth + 1) for one in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    return {
        name: style.one_spelling(one)
        if name in _URI_KEYS and isinstance(one, str)
        else _with_one_spelling(one, style, depth + 1)
        for name, one in cast("dict[str, Any]", value).items()
    }


def is_id(value: object) -> TypeGuard[Id]:
    """Whether a value may be the id of a request."""
    return isinstance(value, int | str) and not isinstance(value, bool)


def to_exception(error: object) -> JsonRpcException:
    """Returns the error of a response, of any form, as an exception."""
    wire = cast("dict[str, Any]", error) if isinstance(error, dict) else {}
    code, message = wire.get("code"), wire.get("message")
    return JsonRpcException(
        message if isinstance(message, str) else "an error without a message",
        code=code if isinstance(code, int) else None,
    )


def to_objects(value: Any) -> Any:
    """Returns decoded JSON with attributes in place of keys, as handlers of our own methods read it."""
    if isinstance(value, dict):
        return SimpleNamespace(**{name: to_objects(one) for name, one in cast("dict[str, Any]", value).items()})
    if isinstance(value, list):
        return [to_objects(one) for one in cast("list[Any]", value)]
    return value


def _to_number(digits: str) -> int | float:
    """Returns a whole number; one that is larger than any float as an infinite float."""
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def _shallow(text: str) -> str:
    """Returns JSON with null in place of each value at the greatest depth; leaves stray brackets."""
    kept: list[str] = []
    depth = start = 0
    for token in _TOKEN.finditer(text):
        bracket = token[0]
        if bracket in {"[", "{"}:
            depth += 1
            if depth == _MOST_DEPTH:
                kept.append(text[start : token.start()])
                start = token.start()
        elif bracket in {"]", "}"}:
            if depth == _MOST_DEPTH:
                kept.append("null")
                start = token.end()
            depth -= 1
    return "".join([*kept, text[start:]])
