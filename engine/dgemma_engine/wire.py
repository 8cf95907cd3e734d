"""How messages are read from JSON: fields checked against a dataclass, faults that name the field.

Knows no message and nothing of transport; standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields
from enum import StrEnum
from typing import Any, Self, TypeVar, cast

_Choice = TypeVar("_Choice", bound=StrEnum)
_Part = TypeVar("_Part")

_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "dict[str, float]": (dict,),
    "dict[str, int]": (dict,),
    "dict[str, str]": (dict,),
    "dict[str, StageTimes]": (dict,),
    "Finish": (str,),
    "Extent": (str,),
    "CandidateSource": (str,),
    "EngineState": (str,),
    "RowKind": (str,),
    "Verdict": (str,),
}


class Message:
    """What all messages can do; each is a frozen dataclass."""

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
        values = checked(cls, wire)
        cls._read(values)
        return cls(**values)

    @classmethod
    def _read(cls, values: dict[str, Any]) -> None:
        """Turns JSON values into the fields' types, in place."""


def checked(cls: type, wire: object) -> dict[str, Any]:
    """Returns a copy of `wire` after checking it against the fields of dataclass `cls`."""
    name = cls.__name__
    if not isinstance(wire, Mapping):
        raise ValueError(f"{name} must be a JSON object, got {type(wire).__name__}")
    known = {f.name: f for f in fields(cls)}
    if unknown := sorted(str(key) for key in wire if key not in known):
        raise ValueError(f"{name} has unknown fields: {', '.join(unknown)}")
    optional = {name for name, f in known.items() if _has_default(f)}
    if missing := sorted(known.keys() - wire.keys() - optional):
        raise ValueError(f"{name} lacks the fields: {', '.join(missing)}")
    for key, value in wire.items():
        expected = _JSON_TYPES.get(str(known[key].type))
        if expected and (not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected)):
            raise ValueError(f"{name}.{key} must be {known[key].type}, got {type(value).__name__}")
    return dict(wire)


def read_parts(
    cls: type, name: str, values: Mapping[str, Any], read: Callable[[Mapping[str, Any]], _Part]
) -> tuple[_Part, ...]:
    """Returns field `name`, a list of JSON objects that may be left out, as what `read` makes of them."""
    parts = values.get(name, ())
    if not isinstance(parts, list | tuple):
        raise ValueError(f"{cls.__name__}.{name} must be a list, got {type(parts).__name__}")
    return tuple(read(part) for part in cast("list[Any]", parts))


def read_choice(cls: type, name: str, choices: type[_Choice], value: str) -> _Choice:
    """Returns field `name` as one of `choices`."""
    try:
        return choices(value)
    except ValueError:
        raise ValueError(f"{cls.__name__}.{name} must be one of {', '.join(choices)}, got {value!r}") from None


def read_texts(cls: type, name: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns field `name`, a list of strings."""
    texts = values[name]
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in cast("list[Any]", texts)):
        raise ValueError(f"{cls.__name__}.{name} must be a list of strings")
    return tuple(cast("list[str]", texts))


def read_numbers(cls: type, name: str, values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns field `name`, a list of numbers."""
    numbers = values[name]
    if not isinstance(numbers, list | tuple) or not all(
        isinstance(number, int | float) for number in cast("list[Any]", numbers)
    ):
        raise ValueError(f"{cls.__name__}.{name} must be a list of numbers")
    return tuple(cast("list[Any]", numbers))


def _has_default(f: Any) -> bool:
    return f.default is not MISSING or f.default_factory is not MISSING
