"""Builds the VS Code extension: `python build_vsix.py [FOLDER]` writes `dgemma-lsp-VERSION.vsix` and prints its path.

Checks the types, bundles, and packs; the tools are the ones of package-lock.json, fetched where they are not there yet.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from wheel_node import npm

EXTENSION = Path(__file__).parents[1]
ROOT = EXTENSION.parents[1]


def build(folder: Path) -> Path:
    """Builds the extension.

    Args:
        folder: where the file is written; made if it is not there.

    Returns:
        The .vsix file.

    Raises:
        subprocess.CalledProcessError: a step failed; the reason is on the terminal.
    """
    lock, installed = EXTENSION / "package-lock.json", EXTENSION / "node_modules/.package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        npm(EXTENSION, "ci", "--ignore-scripts")
    shutil.copy(ROOT / "LICENSE", EXTENSION / "LICENSE")
    folder.mkdir(parents=True, exist_ok=True)
    version = json.loads((EXTENSION / "package.json").read_text(encoding="utf-8"))["version"]
    vsix = folder / f"dgemma-lsp-{version}.vsix"
    npm(EXTENSION, "run", "--silent", "package", "--", "--out", str(vsix))
    return vsix


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else "dist").resolve()))
