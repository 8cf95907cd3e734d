"""A card's launch table as a file that grows during tuning: the candidates tried of each kernel, and the fastest."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

from dgemma_kernels.launch.launch_table import LaunchTable
from tuning_choices import candidates, ordered


@dataclass(slots=True, kw_only=True)
class Tuned:
    """The results of one kernel.

    Attributes:
        tried: candidates tried so far, the table's own entry first.
        seconds: of the fastest; None where none ran.
        first_seconds: of the table's own entry.
        entry: the fastest.
    """

    tried: int = 0
    seconds: float | None = None
    first_seconds: float | None = None
    entry: dict[str, int] | None = None

    def add(self, number: int, entry: dict[str, int], seconds: float | None) -> None:
        """Adds a candidate's time, None for one that does not run."""
        if number == 0:
            self.first_seconds = seconds
        if seconds is not None and (self.seconds is None or seconds < self.seconds):
            self.seconds, self.entry = seconds, entry


class TunedFile:
    """The table of one card as a file, with the results of each kernel.

    Args:
        path: where it is, or will be.
        gpu: the card's name.
        start: the entries of kernels that are not tuned yet.
    """

    def __init__(self, path: Path, gpu: str, start: LaunchTable) -> None:
        self._path, self._gpu, self._start = path, gpu, start
        self.known: dict[str, Tuned] = {}
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            self.known = {kernel: Tuned(**values) for kernel, values in content.get("tuned", {}).items()}
            begin = content.get("start") or content["entries"]
            self._start = LaunchTable(name=start.name, measured=False, entries=begin)

    @property
    def table(self) -> LaunchTable:
        """The fastest entries so far, and those of the start."""
        found = {kernel: one.entry for kernel, one in self.known.items() if one.entry is not None}
        return LaunchTable(name=self._gpu, measured=self.is_whole, entries={**self._start.entries, **found})

    @property
    def is_whole(self) -> bool:
        """Whether every candidate of every kernel was tried."""
        return all(self.is_through(kernel) for kernel in ordered(self._start.entries))

    def is_through(self, kernel: str) -> bool:
        """Returns whether every candidate of a kernel was tried."""
        tried = self.known.get(kernel, Tuned()).tried
        return tried >= sum(1 for _ in candidates(kernel, self._start.of(kernel)))

    def table_for(self, kernel: str) -> LaunchTable:
        """Returns the table with one kernel's entry as it was at the start."""
        table = self.table
        return LaunchTable(name=table.name, measured=False, entries={**table.entries, kernel: self._start.of(kernel)})

    def save(self) -> None:
        """Writes the file; a reader finds the old content or the new one."""
        table = self.table
        content = {
            "measured": table.measured,
            "gpu": self._gpu,
            "entries": {kernel: dict(entry) for kernel, entry in table.entries.items()},
            "start": {kernel: dict(entry) for kernel, entry in self._start.entries.items()},
            "tuned": {
                kernel: {field.name: getattr(one, field.name) for field in fields(one)}
                for kernel, one in self.known.items()
            },
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".part")
        fresh.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        fresh.replace(self._path)
