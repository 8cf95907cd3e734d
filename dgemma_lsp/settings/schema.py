"""The table of settings as a page: JSON Schema, Markdown for docs/settings.md, lines for a terminal."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from dgemma_lsp.settings.settings import OPTIONS, SECTION, Settings


def to_schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 7) of all settings; its `properties` fit VS Code's `contributes.configuration`."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": SECTION,
        "type": "object",
        "properties": {f"{SECTION}.{option.key}": option.to_schema(_default(option.field)) for option in OPTIONS},
        "additionalProperties": False,
    }


def to_markdown() -> str:
    """Returns the table of docs/settings.md."""
    rows = ["| key | default | meaning at both ends |", "| --- | --- | --- |"]
    rows += [f"| `{option.key}` | `{_shown(option.field)}` | {option.meaning} |" for option in OPTIONS]
    return "\n".join(rows)


def to_lines() -> str:
    """Returns the settings for a person at a terminal."""
    rows: list[str] = []
    for option in OPTIONS:
        rows.append(f"{SECTION}.{option.key} = {_shown(option.field)}")
        rows += textwrap.wrap(option.meaning.replace("`", ""), 100, initial_indent="    ", subsequent_indent="    ")
        rows.append(f"    takes {option.wanted}")
    return "\n".join(rows)


def _default(field: str) -> Any:
    value = getattr(Settings(), field)
    return list(value) if isinstance(value, tuple) else value


def _shown(field: str) -> str:
    return json.dumps(_default(field))
