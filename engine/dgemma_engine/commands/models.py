"""`dgemma-engine models`: the models with a short name, what each needs, which are there, and those of the hub."""

from __future__ import annotations

import argparse
import os
import sys

from dgemma_engine.model_store.catalogue import CATALOGUE
from dgemma_engine.model_store.entry import MB
from dgemma_engine.model_store.user_folder import ModelStore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.set_defaults(run=run)


def run(_arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        ModelStoreError: the user has no folder for models.
    """
    store = ModelStore.locate(os.environ)
    rows = [("NAME", "SIZE", "MEMORY", "LICENCE", "WHERE")]
    for entry in CATALOGUE.values():
        path = store.model_path(entry)
        where = str(path) if path else entry.remedy
        rows.append(
            (entry.name, f"{entry.num_bytes / MB:,.0f} MB", f"{entry.memory_bytes / MB:,.0f} MB", entry.licence, where)
        )
    known = {entry.repo for entry in CATALOGUE.values()}
    for name, licence, num_bytes in store.hub_models():
        if str(name) in known:
            continue
        rows.append((str(name), f"{num_bytes / MB:,.0f} MB", "?", licence or "see its page", str(store.hub_path(name))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
    return 0
