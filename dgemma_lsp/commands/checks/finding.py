"""One result of a check by `dgemma-lsp doctor`: subject, severity, what was found, and the remedy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How severe a finding is: `FAIL` means that completions cannot work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check.

    Attributes:
        name: what was checked.
        verdict: its severity.
        detail: what was found.
        remedy: what to do; empty where nothing needs to be done.
    """

    name: str
    verdict: Severity
    detail: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.verdict is Severity.FAIL and not self.remedy:
            raise ValueError(f"{self.name}: a failed check needs a remedy")

    @classmethod
    def split(cls, name: str, verdict: Severity, message: str, *, remedy: str) -> Finding:
        """Returns the finding of an error message of the form `cause; remedy`.

        Args:
            name: what was checked.
            verdict: its severity.
            message: the cause, with or without its remedy.
            remedy: for a message without one.
        """
        cause, _, own = message.partition("; ")
        return cls(name=name, verdict=verdict, detail=cause, remedy=own or remedy)

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON-ready dict."""
        return asdict(self) | {"verdict": self.verdict.value}
