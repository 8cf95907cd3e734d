"""`dgemma-engine adapters`: what `tune` has learnt of each repository; removes it, or switches it off and on."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dgemma_engine.errors import AdapterStoreError
from dgemma_engine.repository_adapters.store import AdapterStore, RepositoryAdapter
from dgemma_engine.terminal import say_error

_NAME = "dgemma-engine"
_MB = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(run=run, action="list")
    actions = parser.add_subparsers(metavar="ACTION")
    for name, summary in (
        ("rm", "remove the adapter of a repository, and what was begun of one"),
        ("off", "keep the adapter of a repository, and complete without it"),
        ("on", "complete with the adapter of a repository again"),
    ):
        action = actions.add_parser(name, help=summary, description=summary)
        action.add_argument("folder", type=Path, metavar="DIR", help="the repository")
        action.set_defaults(action=name)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code: 1 where an adapter cannot be read.

    Raises:
        AdapterStoreError: there is no adapter for the folder, or it cannot be changed.
        ModelStoreError: the user has no folder for adapters.
    """
    store = AdapterStore.locate(os.environ)
    if arguments.action == "list":
        return _list(store, in_json=arguments.json)
    if arguments.action == "rm":
        store.remove(arguments.folder)
        sys.stdout.write(f"{arguments.folder}: removed\n")
    else:
        store.enable(arguments.folder, enabled=arguments.action == "on")
        sys.stdout.write(f"{arguments.folder}: {arguments.action}\n")
    return 0


def _list(store: AdapterStore, *, in_json: bool) -> int:
    found, code = list[RepositoryAdapter](), 0
    for one in store.all():
        if isinstance(one, AdapterStoreError):
            # The others are of use all the same.
            say_error(_NAME, str(one))
            code = 1
        else:
            found.append(one)
    if in_json:
        sys.stdout.writelines(json.dumps(_facts(one)) + "\n" for one in found)
    elif not found:
        sys.stdout.write("no repository was learnt yet; run: dgemma-engine tune DIR\n")
    else:
        _print_table(found)
    return code


def _facts(adapter: RepositoryAdapter) -> dict[str, Any]:
    return asdict(adapter.about) | {"bytes": adapter.num_bytes, "calibrated": adapter.calibration_path is not None}


def _print_table(found: list[RepositoryAdapter]) -> None:
    rows = [("BASE", "DATE", "REST OF LINE", "SIZE", "STATE", "REPOSITORY")]
    for one in found:
        about = one.about
        gain = f"{_percent(about.before.rest)} -> {_percent(about.after.rest)}"
        state = "on" if about.is_enabled else "off"
        rows.append((about.base_name, about.created[:10], gain, f"{one.num_bytes / _MB:.1f} MB", state, about.root))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
