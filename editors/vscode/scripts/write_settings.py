"""The server's table of settings -> `contributes.configuration` of the VS Code extension's package.json, with its own.

`python editors/vscode/scripts/write_settings.py` writes the file anew; a test compares the two.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dgemma_lsp.settings.reader import PERSONAL_KEYS
from dgemma_lsp.settings.schema import to_schema

PACKAGE = Path(__file__).parents[1] / "package.json"
# What differs from machine to machine; the rest may differ from window to window.
MACHINE = frozenset(
    {
        "dgemma.engine.model", "dgemma.engine.device", "dgemma.engine.autostart", "dgemma.engine.idleUnloadMinutes",
        "dgemma.engine.http",
    }
)  # fmt: skip
OWN = {
    "dgemma.server.path": {
        "type": "string",
        "default": "",
        "scope": "machine-overridable",
        "markdownDescription": "Path of the program `dgemma-lsp`. Empty searches for it: see `#dgemma.server.python#`.",
    },
    "dgemma.server.python": {
        "type": "string",
        "default": "",
        "scope": "machine-overridable",
        "markdownDescription": "Path of the Python with the package `dgemma_lsp`. Empty uses the workspace's `.venv`, "
        "then `dgemma-lsp` and `python3` on the search path. In a restricted workspace its `.venv` is never run.",
    },
    "dgemma.preview.always": {
        "type": "boolean",
        "default": False,
        "markdownDescription": "Show the canvas while it is denoised, and ask the model for every suggestion anew. Off "
        "shows the finished suggestion.",
    },
}


def contributed(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the two groups of settings that the extension contributes.

    Args:
        schema: what `dgemma-lsp settings --schema` prints.
    """
    server = {key: _for_the_editor(key, value) for key, value in schema["properties"].items()}
    return [{"title": "dgemma", "properties": server}, {"title": "VS Code extension", "properties": OWN}]


def _for_the_editor(key: str, value: dict[str, Any]) -> dict[str, Any]:
    said = {name: part for name, part in value.items() if name != "description"}
    scope = "machine-overridable" if key in MACHINE else "window"
    if key.removeprefix("dgemma.") in PERSONAL_KEYS:
        # VS Code reads these from user and machine settings only, whatever a workspace says.
        scope = "machine"
    return {**said, "scope": scope, "markdownDescription": value["description"]}


def main() -> None:
    """Writes package.json."""
    package = json.loads(PACKAGE.read_text(encoding="utf-8"))
    package["contributes"]["configuration"] = contributed(to_schema())
    PACKAGE.write_text(json.dumps(package, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
