"""What happens to requests and suggestions, as the counts want to hear it: numbers and names, never text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Source(StrEnum):
    """What answered a request: all of them but `ENGINE` need no work of the engine for it."""

    TYPED_THROUGH = "typed_through"
    """What is left over of the suggestion shown last."""
    STORE = "store"
    """An earlier answer, or one that was prepared."""
    FLIGHT = "flight"
    """The work on an earlier request, which went on."""
    ENGINE = "engine"
    """Work of its own."""
    NOT_ASKED = "not_asked"
    """Nothing: after a deletion, without an engine, in a private file, switched off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A request was answered with a suggestion or with nothing.

    Attributes:
        source: what answered.
        shown: whether there was something to show.
        total_ms: from the request's arrival to its answer.
        stages_ms: what parts of that time went where, by stage.
    """

    source: Source
    shown: bool
    total_ms: float
    stages_ms: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsSpent:
    """The engine's work on one question has ended, whatever became of the question."""

    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsUsed:
    """What the engine worked out in that many steps is shown, for the first time."""

    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggested:
    """A suggestion came up that was not up before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A suggestion was taken as a whole; `partly` says that only a first piece of it was."""

    partly: bool
    characters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Some time after a suggestion was accepted as a whole, the text that it left was looked at.

    Attributes:
        after_s: seconds since it was accepted.
        kept: whether it still stands.
        characters: how many it had inserted.
        characters_kept: how many of them still stand.
    """

    after_s: int
    kept: bool
    characters: int
    characters_kept: int


Event = Answered | StepsSpent | StepsUsed | Suggested | Accepted | Judged
