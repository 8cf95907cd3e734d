"""Launch tables: kernel name and GPU -> block sizes, warps and pipeline stages.

Tables are data in `launch_tables/`, written offline (kernels/bench/tune.py) and never while serving: a file named for a
card takes precedence over the one of its architecture, which was not measured. An architecture without a file gets the
one with the smallest blocks.
"""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "launch_tables"
INTERPRETER = "interpreter"
SMALLEST = "sm_89"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchTable:
    """How every kernel is launched on one card.

    Attributes:
        name: the file's.
        measured: whether a tuner chose the entries on such a card.
        entries: by kernel: upper-case block sizes and switches, `num_warps`, `num_stages`; `pass` has what no single
            kernel decides.
    """

    name: str
    measured: bool
    entries: Mapping[str, Mapping[str, int]]

    def of(self, kernel: str) -> Mapping[str, int]:
        """Returns the entry of one kernel.

        Raises:
            ValueError: the table has none.
        """
        if kernel not in self.entries:
            raise ValueError(f"launch table {self.name} has no entry {kernel!r}; write it again with bench/tune.py")
        return self.entries[kernel]

    def changed(self, kernels: Mapping[str, Mapping[str, int]]) -> LaunchTable:
        """Returns the table with some values changed.

        Args:
            kernels: by a name, or the beginning of names up to a dot: values that their entries get.

        Raises:
            ValueError: no entry has that name, or has that value.
        """
        entries = {name: dict(entry) for name, entry in self.entries.items()}
        for start, values in kernels.items():
            chosen = [entry for name, entry in entries.items() if f"{name}.".startswith(f"{start}.")]
            if not chosen or not all(values.keys() <= entry.keys() for entry in chosen):
                raise ValueError(f"launch table {self.name} has no entries {start!r} with {', '.join(values)}")
            for entry in chosen:
                entry.update(values)
        return LaunchTable(name=self.name, measured=False, entries=entries)


def read(name: str) -> LaunchTable:
    """Returns the table `launch_tables/<name>.json`.

    Raises:
        ValueError: there is none.
    """
    path = FOLDER / f"{name}.json"
    if not path.exists():
        names = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json")))
        raise ValueError(f"no launch table {name!r}; there are {names}")
    content = json.loads(path.read_text(encoding="utf-8"))
    return LaunchTable(name=name, measured=content["measured"], entries=content["entries"])


def file_name(gpu: str) -> str:
    """Returns what a card's table is called, from the name that the driver gives the card."""
    return re.sub(r"[^a-z0-9]+", "_", gpu.lower()).strip("_")


def choose(gpu: str, capability: tuple[int, int]) -> LaunchTable:
    """Returns the table of a card, of its architecture, or the smallest; warns once about one that was not measured.

    Args:
        gpu: name that the driver gives the card.
        capability: major and minor.
    """
    architecture = f"sm_{capability[0]}{capability[1]}"
    found = [name for name in (file_name(gpu), architecture) if (FOLDER / f"{name}.json").exists()]
    table = read(found[0] if found else SMALLEST)
    if not table.measured:
        logger.warning("no launch table for %s: kernels run with defaults; bench/tune.py measures better ones", gpu)
    return table


@functools.cache
def for_device(device: torch.device) -> LaunchTable:
    """Returns the table of the card a tensor is on, or the interpreter's for tensors on the processor."""
    if device.type != "cuda":
        return read(INTERPRETER)
    return choose(torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device))
