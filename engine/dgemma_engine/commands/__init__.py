"""Subcommands of `dgemma-engine`. Each module exposes `add_arguments(parser)` and imports nothing heavy at its top."""
