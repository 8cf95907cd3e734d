"""JSON <-> messages: frozen dataclasses structured by cattrs, every field's type checked, faults that name the field.

Holds the rules of structuring only, for any message.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import StrEnum
from types import GenericAlias
from typing import Any, Self, cast, get_args, get_origin

from cattrs import Converter
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn

_MOST, _MOST_INTEGER = sys.float_info.max, 2**64


class Message:
    """Base of all messages; each is a frozen dataclass."""

    __slots__ = ()

    def to_wire(self) -> dict[str, Any]:
        """Returns a JSON-ready dict."""
        return asdict(cast(Any, self))

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """Reads `to_wire`'s dict.

        Raises:
            ValueError: a field is missing, unknown, of the wrong type or out of range; the message names it.
        """
        try:
            return _CONVERTER.structure(wire, cls)
        except (TypeError, BaseValidationError) as error:
            raise ValueError(_explained(error, cls.__name__)) from None


def _explained(error: BaseException, path: str) -> str:
    """Returns a line about the first fault in an error of cattrs; `path` is where the value that it is about stands."""
    if isinstance(error, ForbiddenExtraKeysError):
        return f"{path} has unknown fields: {', '.join(sorted(error.extra_fields))}"
    if not isinstance(error, BaseValidationError):
        # A TypeError comes from the hooks below; a ValueError from a message's own check, which names its field.
        return f"{path} {error}" if isinstance(error, TypeError) else str(error)
    inner = sorted(error.exceptions, key=lambda one: not isinstance(one, ForbiddenExtraKeysError))
    missing = sorted(name for one in inner if isinstance(one, KeyError) and (name := _place(one)))
    if missing and not isinstance(inner[0], ForbiddenExtraKeysError):
        return f"{path} lacks the fields: {', '.join(place.removeprefix('.') for place in missing)}"
    return _explained(inner[0], path + _place(inner[0]))


def _place(error: BaseException) -> str:
    """Returns `.field` or `[index]`, where the value stood that an error is about; empty for the whole."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return f".{note.name}"
        if isinstance(note, IterableValidationNote):
            return f"[{note.index}]"
    return ""


def _build_converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    for kind in (str, bool, int, float):
        converter.register_structure_hook(kind, _exactly)
    converter.register_structure_hook(StrEnum, _choice)
    converter.register_structure_hook_factory(is_dataclass, _object_hook)
    converter.register_structure_hook_factory(lambda kind: get_origin(kind) is tuple, _list_hook)
    converter.register_structure_hook_factory(lambda kind: get_origin(kind) is dict, _table_hook)
    return converter


def _exactly(value: Any, kind: type) -> Any:
    """Returns a value of that type and no other, but for an integer that stands for a `float`."""
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"must be {kind.__name__}, got {type(value).__name__}")
    if kind is int and abs(value) > _MOST_INTEGER:
        raise TypeError("must be an integer of 64 bits")
    # JSON as Python reads it has NaN, and numbers that no float holds.
    if kind is float and not -_MOST <= value <= _MOST:
        raise TypeError("must be a finite number")
    return value


def _choice(value: Any, kind: type[StrEnum]) -> StrEnum:
    try:
        return kind(value)
    except ValueError:
        raise TypeError(f"must be one of {', '.join(kind)}, got {value!r}") from None


def _object_hook(kind: type, converter: Converter) -> Any:
    read = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)

    def structure(value: Any, _kind: type) -> Any:
        if isinstance(value, kind):
            return value
        if not isinstance(value, Mapping):
            raise TypeError(f"must be a JSON object, got {type(value).__name__}")
        return read(cast("Mapping[str, Any]", value), kind)

    return structure


def _list_hook(kind: GenericAlias, converter: Converter) -> Any:
    (item, _dots) = get_args(kind)
    read = converter.get_structure_hook(item)

    def structure(value: Any, _kind: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise TypeError(f"must be a list, got {type(value).__name__}")
        found: list[Any] = []
        for index, one in enumerate(cast("list[Any]", value)):
            try:
                found.append(read(one, item))
            except Exception as error:
                raise _within(error, index) from None
        return tuple(found)

    return structure


def _table_hook(kind: GenericAlias, converter: Converter) -> Any:
    (_key, item) = get_args(kind)
    read = converter.get_structure_hook(item)

    def structure(value: Any, _kind: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise TypeError(f"must be a JSON object, got {type(value).__name__}")
        found: dict[str, Any] = {}
        for name, one in cast("Mapping[str, Any]", value).items():
            try:
                found[_exactly(name, str)] = read(one, item)
            except Exception as error:
                raise _within(error, name) from None
        return found

    return structure


def _within(error: Exception, place: int | str) -> Exception:
    """Returns an error of cattrs that tells at which index or key of a list or table `error` was found."""
    error.add_note(IterableValidationNote("", place, object))
    # The stub of exception groups does not know the third argument of cattrs.
    return cast("Any", IterableValidationError)("", [error], object)


_CONVERTER = _build_converter()
