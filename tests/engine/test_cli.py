"""Imports of each subcommand: starting the engine imports no tool, and a tool imports no socket code."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import contextlib, io, sys
from dgemma_engine import cli
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
    cli.main([sys.argv[1], "--help"])
assert f"dgemma-engine {sys.argv[1]}" in out.getvalue()
print(*(name for name in sys.modules if name.startswith("dgemma_engine.")))
"""


def imported_packages(subcommand: str) -> set[str]:
    """Returns the engine's subpackages that the help of a subcommand imports."""
    done = subprocess.run([sys.executable, "-c", CODE, subcommand], capture_output=True, text=True, check=True)
    return {name.split(".")[1] for name in done.stdout.split()}


@pytest.mark.parametrize("subcommand", ["start", "stop", "status"])
def test_commands_of_the_engine_load_no_tool(subcommand: str) -> None:
    assert not imported_packages(subcommand) & {"tools", "infill", "model", "tokenization"}


@pytest.mark.parametrize("subcommand", ["train", "corpus", "corpus-packages", "adapt", "holes", "compare"])
def test_tools_load_nothing_of_the_socket_side(subcommand: str) -> None:
    assert not imported_packages(subcommand) & {"ipc", "serving", "commands", "protocol"}
