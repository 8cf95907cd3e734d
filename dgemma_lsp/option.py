"""One setting: its key, what values it takes, and what they mean at both ends. Tells what is wrong with a value.

Pure; knows no editor and not which settings there are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

_MAX_TEXTS = 1_000
_MAX_TEXT_CHARS = 4_096


class Kind(Enum):
    """What a value is; the names are JSON Schema's."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    STRING = "string"
    STRINGS = "array"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One key.

    Attributes:
        key: as the user writes it, dots for nested objects.
        field: attribute of `Settings`.
        kind: what a value is.
        meaning: what the values mean, at both ends.
        low: least number.
        high: greatest number.
        choices: the texts allowed; empty allows any that matches the pattern.
        pattern: regular expression that a text must match in full.
        form: what the pattern means, for people.
    """

    key: str
    field: str
    kind: Kind
    meaning: str
    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()
    pattern: str = r"[\s\S]*\S[\s\S]*"
    form: str = "a text"

    @property
    def wanted(self) -> str:
        """What a value must be, for people."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        names = {
            Kind.BOOLEAN: "true or false",
            Kind.INTEGER: f"a whole number from {self.low} to {self.high}",
            Kind.STRING: self.form,
            Kind.STRINGS: f"a list of at most {_MAX_TEXTS} {self.form}",
        }
        return names[self.kind]

    def problem(self, value: object, *, section: str) -> str | None:
        """Returns why `value` cannot be used for this key, or None.

        Args:
            value: decoded JSON; a tuple counts as a list.
            section: stands before the key in the message.
        """
        if self._fits(value):
            return None
        shown = repr(value)[:60] if isinstance(value, int | float) else _brief(value)
        return f"{section}.{self.key} must be {self.wanted}, not {shown}"

    def to_schema(self, default: object) -> dict[str, Any]:
        """Returns the JSON Schema of a value.

        Args:
            default: holds where the user says nothing.
        """
        schema: dict[str, Any] = {"type": self.kind.value, "default": default, "description": self.meaning}
        if self.kind is Kind.INTEGER:
            schema |= {"minimum": self.low, "maximum": self.high}
        elif self.choices:
            schema["enum"] = list(self.choices)
        elif self.kind is Kind.STRING:
            schema |= {"pattern": f"^({self.pattern})$", "maxLength": _MAX_TEXT_CHARS}
        elif self.kind is Kind.STRINGS:
            item = {"type": "string", "pattern": f"^({self.pattern})$", "maxLength": _MAX_TEXT_CHARS}
            schema |= {"items": item, "maxItems": _MAX_TEXTS}
        return schema

    def _fits(self, value: object) -> bool:
        match self.kind:
            case Kind.BOOLEAN:
                return isinstance(value, bool)
            case Kind.INTEGER:
                return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high
            case Kind.STRING:
                return self._fits_text(value)
            case Kind.STRINGS:
                if not isinstance(value, list | tuple):
                    return False
                texts = cast("list[object]", value)
                return len(texts) <= _MAX_TEXTS and all(self._fits_text(text) for text in texts)

    def _fits_text(self, text: object) -> bool:
        if not isinstance(text, str) or len(text) > _MAX_TEXT_CHARS:
            return False
        return text in self.choices if self.choices else re.fullmatch(self.pattern, text) is not None


def _brief(value: object) -> str:
    return repr(value[:58])[:60] if isinstance(value, str) else type(value).__name__
