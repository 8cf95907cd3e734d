"""The running engines of one user, found by their locks; and those of them that command-line options select.

The name of a lock is a hash of model and device, so the model is found by hashing every short name and device.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.endpoint_options import device_name, model_name
from dgemma_engine.ipc.lock_file import holder_pid
from dgemma_engine.model_store.catalogue import CATALOGUE
from dgemma_engine.model_store.choice import choose_model
from dgemma_engine.protocol.status_messages import Status

_DEVICES = ("auto", "cpu", "cuda", *(f"cuda:{index}" for index in range(16)))
STOP_ALL = "dgemma-engine stop --all"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningEngine:
    """A process that holds the lock of an engine.

    Attributes:
        location: its files; `model` is empty where no short name gives this lock.
        pid: its process id.
    """

    location: EngineLocation
    pid: int

    def named(self, status: Status) -> RunningEngine:
        """Returns the same engine with the model's name, which only the engine itself has for a folder or file.

        Args:
            status: its answer.
        """
        found = None if self.location.model else _match(self.location, (status.model_path, status.model))
        return self if found is None else replace(self, location=found)

    @property
    def stop_command(self) -> str:
        """The command that ends it, and only it where its name is known."""
        return self.location.stop_command if self.location.model else STOP_ALL

    def __str__(self) -> str:
        return f"{self.location.model or 'a model without a short name'} (pid {self.pid})"


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Adds `--model` and `--device`; each is None where the user names none."""
    parser.add_argument(
        "--model", type=model_name, metavar="MODEL", help="short name, folder or GGUF file (default: any)"
    )
    parser.add_argument("--device", type=device_name, help="the device that it was started for (default: any)")


def selected_engines(arguments: argparse.Namespace, environ: Mapping[str, str]) -> list[RunningEngine]:
    """Returns the engines that run and that the options of `add_selection` select; all of them without an option.

    Raises:
        SocketRefused: the directory of the locks cannot be used.
    """
    if arguments.model is None and arguments.device is None:
        return running_engines(environ)
    one = default_location(arguments, environ)
    devices = _DEVICES if arguments.device is None else (arguments.device,)
    return _held(replace(one, device=device) for device in devices)


def default_location(arguments: argparse.Namespace, environ: Mapping[str, str]) -> EngineLocation:
    """Returns the location of the options of `add_selection`, with what is started by default where they are None.

    Raises:
        SocketRefused: the location cannot be used.
    """
    model = choose_model(arguments.model, environ).runs
    return EngineLocation.locate(environ, model=model, device=arguments.device or "auto")


def running_engines(environ: Mapping[str, str]) -> list[RunningEngine]:
    """Returns all engines of this user, in the order of their names.

    Raises:
        SocketRefused: the directory of the locks cannot be used.
    """
    one = EngineLocation.locate(environ)
    found = [_match(location, CATALOGUE) or replace(location, model="") for location in (one, *one.others())]
    return sorted(_held(found), key=lambda engine: (engine.location.model, engine.location.device, engine.pid))


def _held(locations: Iterable[EngineLocation]) -> list[RunningEngine]:
    held: list[RunningEngine] = []
    for location in locations:
        location.verify()
        if (pid := holder_pid(location.lock)) is not None:
            held.append(RunningEngine(location=location, pid=pid))
    return held


def _match(location: EngineLocation, models: Iterable[str]) -> EngineLocation | None:
    """Returns the location with model and device, if one of these models on some device has its lock."""
    candidates = (
        replace(location, model=model, device=device, stem="") for model in models for device in _DEVICES if model
    )
    return next((candidate for candidate in candidates if candidate.lock == location.lock), None)
