"""Measures launch parameters on the GPU at hand and writes a table named for it; run offline, never while serving.

    python kernels/bench/tune.py [--only experts_up.int4,linear] [--seconds 120] [--out FOLDER]

Tries, kernel by kernel, the entries of `candidates` on the shapes of DiffusionGemma 26B with random numbers and keeps
the fastest that compiles, fits and computes what the first entry computes. `FOLDER/<card>.json` (default:
`kernels/dgemma_kernels/launch/launch_tables`) is written after each candidate, and the next run goes on from there; a
table is `measured` once every kernel is done. Not tried on a GPU yet.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Protocol

import full_size
import torch
from cold_timing import ColdCalls
from dgemma_kernels.launch import launch_table
from dgemma_kernels.launch.launch_table import LaunchTable
from torch import Tensor
from tuned_table import Tuned, TunedFile
from tuning_choices import candidates, judges, ordered

# Largest relative root mean square difference of two entries' results: other orders of sums and 8-bit roundings.
MOST_APART = 2.0**-6


class Call(Protocol):
    """A call that is timed: `ColdCalls`."""

    def result(self, table: LaunchTable, /) -> object:
        """Returns what it computes."""
        ...

    def seconds(self, table: LaunchTable, /) -> float:
        """Returns how long it takes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuner:
    """Tries candidates and keeps the results.

    Attributes:
        file: the results so far.
        prepare: makes a call of a case of `full_size`, by its name.
        clock: in seconds.
        is_broken: whether the device can run nothing more after a failed candidate.
    """

    file: TunedFile
    prepare: Callable[[str], Call]
    clock: Callable[[], float] = time.monotonic
    is_broken: Callable[[], bool] = lambda: False

    def run(self, only: Sequence[str], seconds: float) -> int:
        """Tunes until all is done or the time is over; returns the number of candidates tried.

        Args:
            only: beginnings of kernels' names; none for all.
            seconds: in which candidates are started.

        Raises:
            RuntimeError: a candidate broke the device; the next run continues after it.
        """
        end, tried = self.clock() + seconds, 0
        for kernel in ordered(self.file.table.entries, only):
            if self.file.is_through(kernel) or self.clock() >= end:
                continue
            known = self.file.known.setdefault(kernel, Tuned())
            tried += self._tune(kernel, known, end)
            found = {"kernel": kernel, "seconds": known.seconds, "first_seconds": known.first_seconds}
            print(json.dumps(found | {"entry": known.entry}), flush=True)
        return tried

    def _tune(self, kernel: str, known: Tuned, end: float) -> int:
        """Tries what is left of a kernel's candidates; returns their number."""
        calls = [self.prepare(name) for name in judges(kernel)]
        start, tried = self.file.table_for(kernel), 0
        expected: list[list[Tensor]] | None = None
        for number, entry in enumerate(candidates(kernel, start.of(kernel))):
            if number < known.tried:
                continue
            if self.clock() >= end:
                break
            # Kept first: a candidate that ends the process is not tried a second time.
            known.tried, tried = number + 1, tried + 1
            self.file.save()
            seconds = None
            try:
                expected = expected or [floats(call.result(start)) for call in calls]
                seconds = self._seconds(kernel, entry, start, calls, expected)
            except Exception as error:  # whatever the compiler or the driver raise: the other candidates go on
                print(f"{kernel} {entry}: {type(error).__name__}: {error}"[:300], file=sys.stderr)
                if self.is_broken():
                    raise RuntimeError(f"{kernel} with {entry} broke the device: {error}") from error
            known.add(number, entry, seconds)
            self.file.save()
        return tried

    def _seconds(
        self,
        kernel: str,
        entry: Mapping[str, int],
        start: LaunchTable,
        calls: Sequence[Call],
        expected: Sequence[Sequence[Tensor]],
    ) -> float | None:
        """Returns the seconds of all calls together; None where one computes something else."""
        trial = LaunchTable(name=start.name, measured=False, entries={**start.entries, kernel: entry})
        if not all(alike(floats(call.result(trial)), right) for call, right in zip(calls, expected, strict=True)):
            print(f"{kernel} {entry}: another result", file=sys.stderr)
            return None
        return sum(call.seconds(trial) for call in calls)


def floats(result: object) -> list[Tensor]:
    """Returns the 16- and 32-bit floats of a result: 8-bit ones mean nothing without their scales."""
    if isinstance(result, Tensor):
        return [result.float()] if result.dtype in (torch.bfloat16, torch.float16, torch.float32) else []
    if isinstance(result, tuple | list):
        return [tensor for part in result for tensor in floats(part)]
    if is_dataclass(result):
        return [tensor for part in fields(result) for tensor in floats(getattr(result, part.name))]
    return []


def alike(got: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Returns whether two results are the same but for rounding."""
    for one, other in zip(got, expected, strict=True):
        apart = float((one - other).square().mean().sqrt())
        if not apart <= MOST_APART * float(other.square().mean().sqrt()) + 1e-12:
            return False
    return True


def tuner(folder: Path, device: torch.device, is_broken: Callable[[], bool]) -> Tuner:
    """Returns the tuner of a card, whose table is in `folder`."""
    is_card = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if is_card else launch_table.INTERPRETER
    by_name = {case.name: case for case in full_size.cases()}
    return Tuner(
        file=TunedFile(folder / f"{launch_table.file_name(name)}.json", name, launch_table.for_device(device)),
        prepare=lambda case: ColdCalls(by_name[case], device),
        is_broken=is_broken,
    )


def main() -> int:
    """Returns 1 where there is no GPU to measure on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="beginnings of kernels' names, separated by commas")
    parser.add_argument("--seconds", type=float, default=3_600.0)
    parser.add_argument("--out", type=Path, default=launch_table.FOLDER)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("tune.py measures on the GPU at hand, and there is none", file=sys.stderr)
        return 1
    device = torch.device("cuda")
    only = [part for part in args.only.split(",") if part]
    tuner(args.out, device, lambda: is_broken(device)).run(only, args.seconds)
    return 0


def is_broken(device: torch.device) -> bool:
    """Returns whether the device fails every call from now on."""
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
