"""What the user may choose, read tolerantly from whatever JSON the editor sends.

A wrong value never stops the server: it is named in a problem, once, and the value that held before stays. One table
describes every key; readers and messages come from it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

SECTION = "dgemma"

_DEVICES = "auto, cpu, cuda or cuda:N"
LOG_LEVELS = ("error", "warning", "info", "debug")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The choices that hold.

    Attributes:
        enabled: whether anything is offered at all.
        engine_model: path of a model folder, or `embedded`.
        engine_device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        engine_autostart: whether an engine is started when none runs; off only attaches.
        deadline_ms: milliseconds for one answer: small shows less and sooner, large waits for long answers.
        max_tokens: most tokens of an answer: small cuts long ones, large costs time per denoising step.
        completion_fallback: whether the answer is offered in the completion menu too, for clients without ghost text.
        seed: the same seed gives the same answer.
        log_level: least severe message on stderr; none of them contains source text.
    """

    enabled: bool = True
    engine_model: str = "embedded"
    engine_device: str = "auto"
    engine_autostart: bool = True
    deadline_ms: int = 3_000
    max_tokens: int = 64
    completion_fallback: bool = False
    seed: int = 0
    log_level: str = "warning"

    def __post_init__(self) -> None:
        for option in OPTIONS:
            if problem := option.problem(getattr(self, option.field)):
                raise ValueError(problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One key.

    Attributes:
        key: as the user writes it, dots for nested objects.
        field: attribute of `Settings`.
        kind: JSON type, named by Python's.
        low: least number.
        high: greatest number.
        choices: the texts allowed; empty allows any that is not blank.
        pattern: regular expression that a text must match in full.
        form: what the pattern means, for people.
    """

    key: str
    field: str
    kind: type[bool] | type[int] | type[str]
    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()
    pattern: str = r"(?s).*\S.*"
    form: str = "a text"

    def problem(self, value: object) -> str | None:
        """Returns why `value` cannot be used for this key, or None."""
        names = {bool: "true or false", int: f"a whole number from {self.low} to {self.high}", str: self.form}
        wanted = f"one of {', '.join(self.choices)}" if self.choices else names[self.kind]
        fits = isinstance(value, self.kind) and not (self.kind is int and isinstance(value, bool))
        if fits and isinstance(value, int) and self.kind is int:
            fits = self.low <= value <= self.high
        if fits and isinstance(value, str):
            fits = value in self.choices if self.choices else re.fullmatch(self.pattern, value) is not None
        if fits:
            return None
        shown = repr(value) if isinstance(value, str | int | float) else type(value).__name__
        return f"{SECTION}.{self.key} must be {wanted}, not {shown[:60]}"


OPTIONS = (
    Option(key="enabled", field="enabled", kind=bool),
    Option(key="engine.model", field="engine_model", kind=str),
    Option(key="engine.device", field="engine_device", kind=str, pattern=r"auto|cpu|cuda(:\d+)?", form=_DEVICES),
    Option(key="engine.autostart", field="engine_autostart", kind=bool),
    Option(key="deadlineMs", field="deadline_ms", kind=int, low=50, high=60_000),
    Option(key="maxTokens", field="max_tokens", kind=int, low=1, high=4_096),
    Option(key="completionFallback", field="completion_fallback", kind=bool),
    Option(key="seed", field="seed", kind=int, low=0, high=2**63 - 1),
    Option(key="logLevel", field="log_level", kind=str, choices=LOG_LEVELS),
)


def read_settings(raw: object, base: Settings) -> tuple[Settings, tuple[str, ...]]:
    """Reads what the editor sent over what held before.

    Args:
        raw: decoded JSON: nested objects or dotted keys, with or without the outer `dgemma`; None is nothing.
        base: supplies every value that `raw` does not set, or sets wrongly.

    Returns:
        The settings, and one line for each key that could not be used.
    """
    if raw is None:
        return base, ()
    if not isinstance(raw, Mapping):
        return base, (f"the settings must be an object, not {type(raw).__name__}; the defaults hold",)
    by_key = {option.key: option for option in OPTIONS}
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in _flattened(raw):
        option = by_key.get(key)
        problem = option.problem(value) if option else _unknown(key, by_key)
        if problem:
            problems.append(f"{problem}; ignored")
        elif option:
            values[option.field] = value
    assert values.keys() <= {field.name for field in fields(Settings)}
    return replace(base, **values), tuple(problems)


def _flattened(raw: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    groups = {"", SECTION, *(option.key.rpartition(".")[0] for option in OPTIONS)}
    for name, value in raw.items():
        key = f"{prefix}{name}".removeprefix(f"{SECTION}.")
        if key in groups and isinstance(value, Mapping):
            yield from _flattened(value, "" if key == SECTION else f"{key}.")
        elif value is not None:
            yield key, value


def _unknown(key: str, known: Mapping[str, Option]) -> str:
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(key.lower(), by_lower, n=1, cutoff=0.0)
    hint = f"; did you mean {SECTION}.{by_lower[near[0]]}?" if near else ""
    return f"{SECTION}.{key[:60]} is no setting{hint}"
