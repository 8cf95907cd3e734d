"""`dgemma-engine models`: the models with a short name, what each needs, which are there, and those of the hub."""

from __future__ import annotations

import argparse
import os
import sys

from dgemma_engine.model_store.catalogue import CATALOGUE
from dgemma_engine.model_store.entry import MB
from dgemma_engine.model_store.user_folder import ModelStore
from dgemma_engine.terminal import write_table

_GIB, _MIB = 2**30, 2**20
_NOTE = (
    "MEMORY is computed, not measured: for tiny, small and coder on a processor, for every other model on a card. On "
    "this machine: dgemma-engine plan NAME. What an engine holds now: dgemma-engine status.\n"
)


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
        rows.append((entry.name, f"{entry.num_bytes / MB:,.0f} MB", _memory(entry.memory_bytes), entry.licence, where))
    known = {entry.repo for entry in CATALOGUE.values()}
    for name, licence, num_bytes in store.hub_models():
        if str(name) in known:
            continue
        rows.append((str(name), f"{num_bytes / MB:,.0f} MB", "?", licence or "see its page", str(store.hub_path(name))))
    write_table(rows)
    sys.stdout.write(_NOTE)
    return 0


def _memory(num_bytes: int) -> str:
    """Returns a size in the units of `dgemma-engine plan` and `status`."""
    return f"{num_bytes / _GIB:,.2f} GiB" if num_bytes >= 10 * _GIB else f"{num_bytes / _MIB:,.0f} MiB"
