"""`dgemma-engine rm NAME`: removes a fetched model, or an unfinished download of one."""

from __future__ import annotations

import argparse
import os
import sys

from dgemma_engine.errors import ModelStoreError
from dgemma_engine.ipc.endpoint_options import model_name
from dgemma_engine.model_store.catalogue import entry_of
from dgemma_engine.model_store.entry import Entry
from dgemma_engine.model_store.hub_name import HubName
from dgemma_engine.model_store.user_folder import ModelStore
from dgemma_engine.terminal import say_error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.add_argument("name", type=model_name, metavar="NAME", help="short name of the model, or its name at the hub")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        WrongUsage: there is no model of that name.
        ModelStoreError: it was not fetched, or cannot be removed.
        SocketRefused: the folder of the engines' sockets cannot be used.
    """
    if (name := HubName.parse(arguments.name)) is not None:
        _remove(name, str(name))
        return 0
    entry = entry_of(arguments.name)
    if not (entry.wheels or entry.repo):
        raise ModelStoreError(f"{entry.name} was not fetched: {entry.source}")
    _remove(entry, entry.name)
    return 0


def _remove(model: Entry | HubName, name: str) -> None:
    if not ModelStore.locate(os.environ).remove(model):
        raise ModelStoreError(f"{name} is not there; `dgemma-engine models` lists what is")
    sys.stdout.write(f"{name}: removed\n")
    if sys.platform != "win32" and _is_in_memory(name):
        say_error(
            "dgemma-engine", f"an engine still has it in memory; to end it, run: dgemma-engine stop --model {name}"
        )


def _is_in_memory(name: str) -> bool:
    # Not on Windows, where no engine runs and these modules are not found.
    from dgemma_engine.ipc.endpoint import EngineLocation
    from dgemma_engine.ipc.lock_file import holder_pid

    return holder_pid(EngineLocation.locate(os.environ, model=name, device="auto").lock) is not None
