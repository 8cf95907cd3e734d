"""`dgemma-engine adapters`: what `tune` has learnt of each repository; removes it, or switches it off and on."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from dgemma_engine.errors import AdapterStoreError
from dgemma_engine.repository_adapters.store import AdapterStore, RepositoryAdapter
from dgemma_engine.repository_adapters.training_folder import UnfinishedTraining
from dgemma_engine.terminal import say_error, visible, write_table

_NAME = "dgemma-engine"
_MB = 1_000_000
_HOW_TO_GO_ON = (
    "unfinished: go on with `dgemma-engine tune DIR --resume`, or drop it with `dgemma-engine adapters rm DIR "
    "--unfinished`"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(run=run, action="list")
    actions = parser.add_subparsers(metavar="ACTION")
    for name, summary in (
        ("rm", "remove the adapter of a repository, and its unfinished training"),
        ("off", "keep the adapter of a repository, and complete without it"),
        ("on", "complete with the adapter of a repository again"),
    ):
        action = actions.add_parser(name, help=summary, description=summary)
        action.add_argument("folder", type=Path, metavar="DIR", help="the repository")
        if name == "rm":
            action.add_argument("--unfinished", action="store_true", help="remove only its unfinished training")
        action.set_defaults(action=name)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code: 1 where an adapter cannot be read.

    Raises:
        AdapterStoreError: there is no adapter for the folder, or it cannot be changed.
        TrainingError: it is being trained, and cannot be removed.
        ModelStoreError: the user has no folder for adapters.
    """
    store = AdapterStore.locate(os.environ)
    if arguments.action == "list":
        return _list(store, in_json=arguments.json)
    name = visible(str(arguments.folder))
    if arguments.action == "rm":
        (store.remove_unfinished if arguments.unfinished else store.remove)(arguments.folder)
        sys.stdout.write(f"{name}: removed\n")
    else:
        store.enable(arguments.folder, enabled=arguments.action == "on")
        sys.stdout.write(f"{name}: {arguments.action}\n")
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One line of the list: an adapter, or an unfinished training.

    Attributes:
        root: of the repository.
        base_name: file name of the base.
        created: when it was made or begun, ISO 8601.
        state: on, off, damaged or unfinished.
        num_bytes: that it takes.
        message: what is wrong, and what to do; empty where nothing is.
        gain: share of ends of lines that were filled exactly, before and after.
        more: further facts.
    """

    root: str
    base_name: str
    created: str
    state: str
    num_bytes: int
    message: str = ""
    gain: str = "-"
    more: dict[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def of(cls, found: RepositoryAdapter | UnfinishedTraining) -> Self:
        if isinstance(found, UnfinishedTraining):
            facts = found.facts
            return cls(
                root=facts.root, base_name=facts.base_name, created=facts.started, state="unfinished",
                num_bytes=found.num_bytes, message=_HOW_TO_GO_ON, more=asdict(facts),
            )  # fmt: skip
        about, fault = found.about, found.fault
        return cls(
            root=about.root,
            base_name=about.base_name,
            created=about.created,
            state="damaged" if fault else "on" if about.is_enabled else "off",
            num_bytes=found.num_bytes,
            message=fault,
            gain=f"{_percent(about.before.rest)} -> {_percent(about.after.rest)}",
            more=asdict(about) | {"calibrated": found.calibration_path is not None},
        )

    def cells(self) -> tuple[str, ...]:
        size = f"{self.num_bytes / _MB:.1f} MB"
        return visible(self.base_name), self.created[:10], self.gain, size, self.state, visible(self.root)

    def to_json(self) -> dict[str, Any]:
        return self.more | {"state": self.state, "bytes": self.num_bytes, "message": self.message}


def _list(store: AdapterStore, *, in_json: bool) -> int:
    lines, code = list[_Line](), 0
    for one in store.all():
        if isinstance(one, AdapterStoreError):
            # The other adapters can still be listed.
            say_error(_NAME, str(one))
            code = 1
            continue
        lines.append(line := _Line.of(one))
        if line.state == "damaged":
            say_error(_NAME, line.message)
            code = 1
    if in_json:
        sys.stdout.writelines(json.dumps(line.to_json()) + "\n" for line in lines)
    elif lines:
        _print_table(lines)
    elif not code:
        sys.stdout.write("no repository was learnt yet; run: dgemma-engine tune DIR\n")
    return code


def _print_table(lines: list[_Line]) -> None:
    rows = [("BASE", "DATE", "REST OF LINE", "SIZE", "STATE", "REPOSITORY"), *(line.cells() for line in lines)]
    write_table(rows)
    if any(line.state == "unfinished" for line in lines):
        sys.stdout.write(_HOW_TO_GO_ON + "\n")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
