"""JSON of an editor, of any form -> settings, read tolerantly.

A wrong value never stops the server: a problem names it, and the previous value stays. A key that a workspace may not
set is refused with a sentence; of a list that it may add to, the user's entries stay.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from enum import Enum
from itertools import islice
from typing import Any, cast

from dgemma_lsp.settings.options import Option, WorkspaceMay, shown
from dgemma_lsp.settings.settings import OPTIONS, SECTION, Settings

PERSONAL_KEYS = frozenset(option.key for option in OPTIONS if option.workspace_may is WorkspaceMay.NOTHING)
"""Keys that a workspace may not set."""

_PERSONAL = (
    "{key} is ignored here: only your own settings decide where your text goes, and no workspace; set it in user or "
    "machine settings, then restart the server"
)
_MAX_PROBLEMS = 5
_MAX_KEY_CHARS = 60
_MOST_NAMES = 1_000


class SettingsOf(Enum):
    """Whose settings are read."""

    USER = "user"
    WORKSPACE = "workspace"


def read_settings(
    raw: object, base: Settings, held: Settings | None = None, *, of: SettingsOf = SettingsOf.USER
) -> tuple[Settings, tuple[str, ...]]:
    """Reads what the editor sent.

    Args:
        raw: decoded JSON: nested objects or dotted keys, with or without the outer `dgemma`; None holds no key.
        base: supplies every value that `raw` leaves out; of `SettingsOf.WORKSPACE`, the user's own.
        held: supplies every value that `raw` sets in a way that cannot be used; None is `base`.
        of: whose settings they are; what a workspace may set is in `Option.workspace_may`.

    Returns:
        The settings, and a line for each of the first keys that could not be used as they are, with one for the number
        of others. The usable entries of a list are kept.
    """
    if raw is None:
        return base, ()
    if not isinstance(raw, Mapping):
        return base, (f"the settings must be an object, not {shown(raw)}; the defaults hold",)
    by_key = {option.key: option for option in OPTIONS}
    values: dict[str, Any] = {}
    problems: list[str] = []
    found, num_more = _flattened(cast("Mapping[str, object]", raw), by_key)
    for key, value in found:
        option = by_key.get(key)
        if option is not None and of is SettingsOf.WORKSPACE and option.workspace_may is WorkspaceMay.NOTHING:
            if option.usable(value) != getattr(base, option.field):
                problems.append(_PERSONAL.format(key=f"{SECTION}.{key}"))
            continue
        if option is not None and (notice := option.rename_notice(value, section=SECTION)):
            values[option.field] = option.renamed[str(value)]
            problems.append(notice)
            continue
        usable = option.usable(value) if option else None
        fate = "ignored"
        if option is not None:
            kept = getattr(held or base, option.field)
            is_default = kept == getattr(Settings(), option.field)
            fate = f"the default holds: {shown(kept)}" if is_default else "the value before holds"
            if is_default and option.when_unusable is not None:
                kept = option.when_unusable
                fate = f"until it is mended this holds: {', '.join(option.when_unusable)}"
            values[option.field] = kept if usable is None else usable
            if of is SettingsOf.WORKSPACE and option.workspace_may is WorkspaceMay.ADD:
                own, added = getattr(base, option.field), cast("tuple[str, ...]", tuple(values[option.field]))
                values[option.field], refusal = option.joined(own, added)
                if refusal:
                    problems.append(f"{SECTION}.{key}: {refusal}")
        problem = option.problem(value, section=SECTION) if option else ""
        if problem is None:
            continue
        if len(problems) == _MAX_PROBLEMS:
            # Finding the nearest key takes time, and a thousand messages would not be read.
            num_more += 1
        else:
            problem = problem or _unknown(key, by_key)
            problems.append(problem if usable is not None else f"{problem}; {fate}")
    if num_more:
        problems.append(f"{num_more} more settings cannot be used; dgemma-lsp settings lists what can")
    return replace(base, **values), tuple(problems)


def _flattened(raw: Mapping[str, object], known: Mapping[str, Option]) -> tuple[list[tuple[str, object]], int]:
    """Returns dotted keys without the section, no deeper than a known key can be, and how many were left out.

    Of an object with more than 1,000 names the first 1,000 are read and those that are known.
    """
    inner = raw.get(SECTION)
    layers = [raw, cast("Mapping[str, object]", inner)] if isinstance(inner, Mapping) else [raw]
    groups = {key.rpartition(".")[0] for key in known} - {""}
    found: list[tuple[str, object]] = []
    num_left_out = 0
    for layer in layers:
        names = _names(layer, [SECTION, *groups, *known])
        num_left_out += len(layer) - len(names)
        for name in names:
            key, value = name.removeprefix(f"{SECTION}."), layer[name]
            if value is None or (layer is raw and key == SECTION and isinstance(value, Mapping)):
                continue
            if key in groups and isinstance(value, Mapping):
                group = cast("Mapping[str, object]", value)
                parts = _names(group, [one.removeprefix(f"{key}.") for one in known])
                num_left_out += len(group) - len(parts)
                found += ((f"{key}.{part}", group[part]) for part in parts if group[part] is not None)
            else:
                found.append((key, value))
    return found, num_left_out


def _names(layer: Mapping[str, object], known: Iterable[str]) -> Collection[str]:
    if len(layer) <= _MOST_NAMES:
        return layer
    wanted = (name for key in known for name in (key, f"{SECTION}.{key}") if name in layer)
    return dict.fromkeys([*islice(layer, _MOST_NAMES), *wanted])


def _unknown(key: str, known: Mapping[str, Option]) -> str:
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(key[:_MAX_KEY_CHARS].lower(), by_lower, n=1, cutoff=0.0)
    hint = f"; did you mean {SECTION}.{by_lower[near[0]]}?" if near else ""
    return f"{SECTION}.{key[:_MAX_KEY_CHARS]} is no setting{hint}"
