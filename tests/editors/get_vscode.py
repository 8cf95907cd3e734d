"""Installs the code-server (workbench and extension host) that the VS Code tests drive, from npm.

`python tests/editors/get_vscode.py [FOLDER]`; does nothing where the stamp of the same versions is there.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "editors/vscode/scripts")]

from wheel_node import NODE, npm  # noqa: E402  (the folder of the extension's scripts is no package)

from tests.debian_packages import require_program  # noqa: E402

FOLDER = ROOT / ".editors/vscode"
CODE_SERVER = "4.139.1"
# Output channels stay empty without the first; the workbench reports the second as missing.
NATIVE = ("@vscode/spdlog", "@vscode/native-watchdog")


def entry_point(folder: Path = FOLDER) -> Path:
    """Returns the script that Node runs as code-server."""
    return folder / "node_modules/code-server/out/node/entry.js"


def install(folder: Path = FOLDER) -> None:
    """Installs into `folder`, unless the same versions are there.

    Raises:
        subprocess.CalledProcessError: a step failed; its output is on the terminal.
        ProgramMissingError: there is no C++ compiler and it cannot be installed.
    """
    stamp = folder / "installed.json"
    node = subprocess.run([NODE, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    wanted = {"code-server": CODE_SERVER, "node": node, "native": list(NATIVE)}
    if stamp.exists() and json.loads(stamp.read_text(encoding="utf-8")) == wanted:
        return
    # npm compiles the native modules.
    require_program("g++", ("g++", "make"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "package.json").write_text('{"private": true}\n', encoding="utf-8")
    npm(folder, "install", "--ignore-scripts", f"code-server@{CODE_SERVER}")
    inner = folder / "node_modules/code-server/lib/vscode"
    npm(inner, "install", "--omit=dev", "--ignore-scripts")
    npm(inner / "extensions", "install", "--omit=dev", "--ignore-scripts")
    npm(inner, "rebuild", "--foreground-scripts", *NATIVE)
    stamp.write_text(json.dumps(wanted), encoding="utf-8")


if __name__ == "__main__":
    install(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else FOLDER)
