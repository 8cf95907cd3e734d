"""One setting: its key, the values it takes and what they mean at both ends; explains why a value cannot be used.

Pure; independent of editors and of the table of settings.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

_MAX_TEXTS = 1_000
_MAX_SHOWN_CHARS = 58
_MAX_SHOWN_ENTRIES = 3
_MAX_SHOWN_NUMBER = 10**18


class Kind(Enum):
    """What a value is; the names are JSON Schema's."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    STRING = "string"
    STRINGS = "array"


class WorkspaceMay(Enum):
    """What the configuration of a workspace, which a repository may have written, may do with a key.

    Attributes:
        SET: replace the user's value.
        ADD: add entries to the user's list; those that begin with `!` take something away and are refused.
        NOTHING: nothing, because the key decides where text goes.
    """

    SET = "set"
    ADD = "add"
    NOTHING = "nothing"


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
        max_chars: most characters of one text.
        form: what the pattern means, for people.
        entry: what one text of a list is, for people.
        when_unusable: value where no part of the given one can be used and the default would hold; None is the default.
        refusal: returns why a text that matches the pattern cannot be used, or nothing.
        renamed: the new text for each that an earlier version took.
        workspace_may: what a workspace may do with it.
    """

    key: str
    field: str
    kind: Kind
    meaning: str
    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()
    pattern: str = r"[\s\S]*\S[\s\S]*"
    max_chars: int = 4_096
    form: str = "a text"
    entry: str = "a text"
    when_unusable: tuple[str, ...] | None = None
    refusal: Callable[[str], str | None] = lambda _text: None
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    workspace_may: WorkspaceMay = WorkspaceMay.SET

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
        if self.kind is Kind.STRINGS and isinstance(value, list | tuple):
            return self._problem_of_entries(cast("list[object]", value), section=section)
        problem = f"{section}.{self.key} must be {self.wanted}, not {shown(value)}"
        return f"{problem}; it counts as a list of one" if self._is_one_of_a_list(value) else problem

    def rename_notice(self, value: object, *, section: str) -> str:
        """Returns what to tell the user whose value has a new name; empty for any other value.

        Args:
            value: decoded JSON.
            section: stands before the key in the message.
        """
        new = self.renamed.get(value) if isinstance(value, str) else None
        return f"{section}.{self.key}: {shown(value)} is called {shown(new)} now; write that" if new else ""

    def usable(self, value: object) -> object | None:
        """Returns the usable part of a value, or None.

        Of a list that is its usable entries; a text in place of a list counts as a list of one.

        Args:
            value: decoded JSON; a tuple counts as a list.
        """
        if self.kind is not Kind.STRINGS:
            return value if self._fits(value) else None
        if self._is_one_of_a_list(value):
            return (value,)
        if not isinstance(value, list | tuple):
            return None
        texts = cast("list[object]", value)
        good = tuple(text for text in texts[:_MAX_TEXTS] if self._why_not(text) is None)
        # A list without a usable entry counts as not set; an empty list is a value.
        return good if good or not texts else None

    def joined(self, own: tuple[str, ...], added: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
        """Returns the user's list with the entries that a workspace adds, and what is wrong with those; empty: nothing.

        Args:
            own: of the user; each counts.
            added: usable entries of the workspace, after the user's. Those that begin with `!` are left out, and those
                beyond the longest list.
        """
        new = dict.fromkeys(text for text in added if text not in own)
        kept = [text for text in new if not text.startswith("!")]
        refused = [text for text in new if text.startswith("!")]
        if refused:
            return (*own, *kept)[:_MAX_TEXTS], (
                f"{shown(refused[0])} is ignored here: a workspace may add entries and takes none away; write it in "
                "user settings, then restart the server"
            )
        if len(own) + len(kept) > _MAX_TEXTS:
            return (*own, *kept)[:_MAX_TEXTS], f"the first {_MAX_TEXTS} entries of user and workspace are used"
        return (*own, *kept), ""

    def to_schema(self, default: object) -> dict[str, Any]:
        """Returns the JSON Schema of a value.

        Args:
            default: holds where the user sets nothing.
        """
        schema: dict[str, Any] = {"type": self.kind.value, "default": default, "description": self.meaning}
        if self.kind is Kind.INTEGER:
            schema |= {"minimum": self.low, "maximum": self.high}
        elif self.choices:
            schema["enum"] = list(self.choices)
        elif self.kind is Kind.STRING:
            schema |= {"pattern": f"^({self.pattern})$", "maxLength": self.max_chars}
        elif self.kind is Kind.STRINGS:
            item = {"type": "string", "pattern": f"^({self.pattern})$", "maxLength": self.max_chars}
            schema |= {"items": item, "maxItems": _MAX_TEXTS}
        return schema

    def _fits(self, value: object) -> bool:
        match self.kind:
            case Kind.BOOLEAN:
                return isinstance(value, bool)
            case Kind.INTEGER:
                return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high
            case Kind.STRING:
                return self._why_not(value) is None
            case Kind.STRINGS:
                if not isinstance(value, list | tuple):
                    return False
                texts = cast("list[object]", value)
                return len(texts) <= _MAX_TEXTS and all(self._why_not(text) is None for text in texts)

    def _is_one_of_a_list(self, value: object) -> bool:
        return self.kind is Kind.STRINGS and isinstance(value, str) and self._why_not(value) is None

    def _problem_of_entries(self, entries: list[object], *, section: str) -> str:
        """Names the entries that cannot be used, the first of them with the reason."""
        name = f"{section}.{self.key}"
        bad = [
            (number, why)
            for number, entry in enumerate(entries[:_MAX_TEXTS], start=1)
            if (why := self._why_not(entry)) is not None
        ]
        if not bad:
            return f"{name} has {len(entries)} entries, and the first {_MAX_TEXTS} are used; shorten the list"
        number, why = bad[0]
        more = ", ".join(str(number) for number, _ in bad[1 : _MAX_SHOWN_ENTRIES + 1])
        further = f" and {len(bad) - _MAX_SHOWN_ENTRIES - 1} more" if len(bad) > _MAX_SHOWN_ENTRIES + 1 else ""
        rest = f"; nor can {'entry' if len(bad) == 2 else 'entries'} {more}{further}" if more else ""
        others = "; the other entries hold" if len(bad) < len(entries) else ""
        return f"{name}: entry {number} cannot be used: {why}{rest}{others}"

    def _why_not(self, text: object) -> str | None:
        """Returns why a text cannot be used, or None."""
        if not isinstance(text, str):
            return f"it must be {self.entry}, not {shown(text)}"
        if len(text) > self.max_chars:
            return f"it has {len(text)} characters; at most {self.max_chars} are allowed"
        if self.choices:
            return None if text in self.choices else f"it must be {self.wanted}"
        if re.fullmatch(self.pattern, text) is None:
            return f"{shown(text)} is not {self.entry}"
        why = self.refusal(text)
        return f"{shown(text)}: {why}" if why else None


def shown(value: object) -> str:
    """Returns a value as the user wrote it, or the name of its kind."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return repr(value[:_MAX_SHOWN_CHARS])[: _MAX_SHOWN_CHARS + 2]
        case float():
            return repr(value)
        case int():
            return repr(value) if abs(value) < _MAX_SHOWN_NUMBER else "so large a number"
        case Mapping():
            return "an object"
        case list() | tuple():
            return "a list" if value else "an empty list"
        case _:
            return type(value).__name__
