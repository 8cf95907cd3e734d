"""Real clients of other projects against the HTTP server: run by `make test-clients` and by nothing else.

The tests carry the marker `clients`, which is deselected by default. The clients lie in `.clients/`: a virtual
environment of their own, because their requirements must not affect those of this project, and packages of Node.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from tests.engine.http_api.running_server import RunningServer

HERE = Path(__file__).parent
CLIENTS = HERE.parents[1] / ".clients"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests below this folder, before pytest selects by marker."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.clients)


async def run(running: RunningServer, *command: str | Path, **environ: str) -> str:
    """Runs a client, which has the server's URL in `URL`, and returns what it prints."""
    result = await asyncio.to_thread(
        subprocess.run,
        [str(part) for part in command],
        cwd=CLIENTS,
        env=os.environ | {"URL": running.url} | environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()
