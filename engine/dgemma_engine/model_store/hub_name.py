"""Names of models at the Hugging Face hub: `owner/name`, `@revision` and `:file` after it. Standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote

_PART = r"[A-Za-z0-9][\w.-]{0,95}"
_NAME = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[\w./-]{{1,200}}))?(?::(?P<file>[\w./-]{{1,200}}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubName:
    """A model at the hub.

    Attributes:
        repo: `owner/name`.
        revision: branch, tag or commit; empty is the main branch.
        file: path of a GGUF file; empty is a folder of weights.
    """

    repo: str
    revision: str = ""
    file: str = ""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Returns the name that a text is; None for what is no such name."""
        found = _NAME.fullmatch(text)
        if found is None or ".." in text or text.endswith("/"):
            return None
        return cls(repo=found["repo"], revision=found["revision"] or "", file=found["file"] or "")

    def __str__(self) -> str:
        revision, file = self.revision and f"@{self.revision}", self.file and f":{self.file}"
        return f"{self.repo}{revision}{file}"

    @property
    def folder(self) -> str:
        """Name of its folder, different for different models."""
        return quote(str(self), safe="@:")
