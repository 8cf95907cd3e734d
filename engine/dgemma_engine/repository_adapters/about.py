"""`about.json` of a repository's adapter: its repository and base, and its figures. Standard library only."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Self, cast

VERSION = 1
"""Of the store's format; an adapter of another version is not used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutFigures:
    """How well holes in held-out files were filled. Shares are 0 to 1; None where there was no such hole.

    Attributes:
        num_holes: judged.
        rest: share of the holes "from a token to the end of its line" that were filled exactly.
        line: the same of whole lines.
        edit_similarity: mean share of characters in common, over all holes.
        precision_shown: share of the answers that would be shown which are exact.
        shown: share of the holes with an answer that would be shown.
    """

    num_holes: int
    rest: float | None
    line: float | None
    edit_similarity: float
    precision_shown: float | None
    shown: float

    def __post_init__(self) -> None:
        if not _is_count(self.num_holes):
            raise ValueError(f"{self.num_holes=} must be a whole number of at least 0")
        for name in ("edit_similarity", "shown"):
            _check_share(name, getattr(self, name))
        for name in ("rest", "line", "precision_shown"):
            if getattr(self, name) is not None:
                _check_share(name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """The content of `about.json`.

    Attributes:
        root: canonical path of the repository's folder.
        base_name: file name of the base.
        base_sha256: SHA-256 of the base.
        merged_sha256: SHA-256 of the causal adapter that is merged into the base at load, on top of which this one
            was trained; empty where there was none. The adapter is of use beside exactly that base only.
        created: when training ended, ISO 8601 with a time zone.
        minutes: spent training.
        holes: trained on.
        before: figures without the adapter.
        after: figures with it, on the same holes.
        is_enabled: whether the engine is to use it.
    """

    root: str
    base_name: str
    base_sha256: str
    merged_sha256: str
    created: str
    minutes: float
    holes: int
    before: HeldOutFigures
    after: HeldOutFigures
    is_enabled: bool = True

    def __post_init__(self) -> None:
        strings = ("root", "base_name", "base_sha256", "merged_sha256", "created")
        for kind, names in ((str, strings), (bool, ("is_enabled",))):
            for name in names:
                if not isinstance(getattr(self, name), kind):
                    raise ValueError(f"{name}={getattr(self, name)!r} must be of type {kind.__name__}")
        if datetime.fromisoformat(self.created).tzinfo is None:
            raise ValueError(f"{self.created=} must have a time zone")
        if not _is_number(self.minutes) or self.minutes < 0:
            raise ValueError(f"{self.minutes=} must be a number of at least 0")
        if not _is_count(self.holes):
            raise ValueError(f"{self.holes=} must be a whole number of at least 0")

    def to_json(self, files: str) -> str:
        """Returns the text of `about.json`.

        Args:
            files: name of the folder beside it that holds the adapter.
        """
        return json.dumps({"version": VERSION, "files": files, **asdict(self)}, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> tuple[Self, str]:
        """Reads `to_json`'s text; returns the folder's name as well.

        Raises:
            ValueError: it is damaged, or of another version.
        """
        values = _object(json.loads(text), "the file")
        if values.pop("version", None) != VERSION:
            raise ValueError(f"it is not of version {VERSION}")
        files = values.pop("files", None)
        if not isinstance(files, str) or not files.isalnum():
            raise ValueError(f"{files=} must be the name of a folder")
        for name in ("before", "after"):
            figures = _object(values.get(name), name)
            _check_names(name, figures, HeldOutFigures)
            values[name] = HeldOutFigures(**figures)
        _check_names("the file", values, cls)
        return cls(**values), files


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a JSON object, got {type(value).__name__}")
    return cast(dict[str, Any], value)


def _check_names(what: str, values: dict[str, Any], kind: type[Any]) -> None:
    names = {field.name for field in fields(kind)}
    if values.keys() != names:
        missing, unknown = sorted(names - values.keys()), sorted(values.keys() - names)
        raise ValueError(f"{what}: {missing=}, {unknown=}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_share(name: str, value: float) -> None:
    if not _is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{name}={value!r} must be a number between 0 and 1")
