"""Builds the parser of every command that is there on Windows, as `windows_like.py` runs it; prints their names."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dgemma_engine import cli


def main(_argv: Sequence[str]) -> int:
    for command in cli._COMMANDS:
        if command not in cli._LOCAL_COMMANDS:
            cli._parser([command])
            sys.stdout.write(f"{command}\n")
    return 0
