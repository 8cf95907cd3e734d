"""Subcommands of `dgemma-engine`. Each module exposes `add_parser(subparsers)` and imports nothing heavy at its top."""

from dgemma_engine.commands import start, status, stop

__all__ = ["start", "status", "stop"]
