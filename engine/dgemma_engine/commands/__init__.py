"""Subcommands of `dgemma-engine`. Each module exposes `add_parser(subparsers)` and imports nothing heavy at its top."""

from dgemma_engine.commands import export, quantize, start, status, stop

__all__ = ["export", "quantize", "start", "status", "stop"]
