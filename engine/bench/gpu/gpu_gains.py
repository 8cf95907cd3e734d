"""Each switch that the launch tables leave off, with and without: its kernels, whole steps, and equal results.

A gain is a change of the launch table (`kernels/bench/table_gains.py`). Calls are timed over copies beyond the cache;
steps replay the captured graphs of one model, whose table is changed in place between two measurements.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from dgemma_engine.model.ops import FusedOps, Ops
from dgemma_kernels.launch.launch_table import LaunchTable, for_device
from gpu_cases import Bench
from gpu_checks import Checks
from gpu_result import FIXED, Report
from gpu_setting import GpuSetting, format_of, run_cases

sys.path.insert(0, str(Path(__file__).parents[3] / "kernels/bench"))
WITHOUT, EVERY = "without gains", "every gain"

# The calls of `kernels/bench/full_size.py` that a gain is about; the others change whole passes only.
CALLS_OF: Mapping[str, tuple[str, ...]] = {
    "split_k": tuple(
        f"linear.{form}.{name}" for form in ("plain", "fp8", "int8") for name in ("o_sliding", "dense_down")
    ),
    "split_kv": ("attention.canvas.256", "attention.canvas.512"),
    "scales_ahead": ("experts.fp8.canvas", "experts.int4.canvas"),
    "down_blocks": ("experts.fp8.canvas", "experts.int4.canvas"),
}


class ChangingTable:
    """The launch table of a device with gains, which change while a model refers to it.

    Args:
        device: its table is the start.

    Attributes:
        table: the table that operations are launched with.
    """

    def __init__(self, device: torch.device) -> None:
        self._start = for_device(device)
        self._entries = dict(self._start.entries)
        self.table = LaunchTable(name=self._start.name, measured=False, entries=self._entries)

    def set(self, gain: str) -> None:
        """Puts the entries of one gain, of all or of none in place."""
        self._entries.update(changed(self._start, gain).entries)


def run(setting: GpuSetting, report: Report) -> None:
    """Measures each gain's calls, checks all operations with every gain, and times steps with each."""
    device = setting.device

    def calls(gain: str) -> list[dict[str, Any]]:
        report.keep("gains", {gain: calls_with(gain, device)})
        return []

    def check(form: str) -> list[dict[str, Any]]:
        checks = Checks(device=device, config=setting.checked, sizes=setting.sizes, ops=setting.ops)
        ours = FusedOps.triton(changed(for_device(device), EVERY))
        report.keep("checked_gains", {form: checks.operations(format_of(form), ours)})
        return []

    for form in setting.formats:
        report.guard("operations with every gain", form, lambda form=form: check(form))
    # Full-size calls take the interpreter hours.
    for gain in CALLS_OF if not setting.is_tiny else ():
        report.guard(gain, "", lambda gain=gain: calls(gain))
    for form in reversed(setting.formats):
        changing = ChangingTable(device)
        ops = setting.ops if setting.is_tiny else Ops.triton(changing.table)
        cases = {f"{FIXED}, {gain}": partial(_fixed_with, gain, changing) for gain in names()}
        run_cases(replace(setting, ops=ops), form, report, cases)


def _fixed_with(gain: str, changing: ChangingTable, bench: Bench) -> list[dict[str, Any]]:
    """Times the fixed steps with a gain; graphs captured without it are captured again."""
    changing.set(gain)
    return [entry | {"case": f"{FIXED}, {gain}"} for entry in Bench(bench.model, bench.form, bench.sizes).fixed()]


def names() -> list[str]:
    """Returns the names of the measurements, in order: without gains, each, and all together."""
    from table_gains import GAINS

    return [WITHOUT, *GAINS, EVERY]


def changed(table: LaunchTable, gain: str) -> LaunchTable:
    """Returns a table with one gain, with all or with none."""
    from table_gains import GAINS, together

    return table.changed({WITHOUT: {}, EVERY: together()}.get(gain) or GAINS.get(gain, {}))


def calls_with(gain: str, device: torch.device) -> dict[str, dict[str, float]]:
    """Returns microseconds of a gain's calls without it and with it.

    Raises:
        ValueError: a call computes something else with it.
    """
    import full_size
    from cold_timing import ColdCalls
    from tune import alike, floats

    cases, start = {case.name: case for case in full_size.cases()}, for_device(device)
    found: dict[str, dict[str, float]] = {}
    for name in CALLS_OF.get(gain, ()):
        calls, other = ColdCalls(cases[name], device), changed(start, gain)
        if not alike(floats(calls.result(other)), floats(calls.result(start))):
            raise ValueError(f"{name} computes something else with {gain}")
        found[name] = {
            key: round(calls.seconds(table) * 1e6, 2) for key, table in (("without_us", start), ("with_us", other))
        }
    return found


def profile(run: Any, device: torch.device, most: int = 25) -> list[dict[str, Any]]:
    """Returns the kernels that took most of a run's time on the device, or operators on a processor.

    Args:
        run: what is profiled; it has run before.
        device: where it runs.
        most: kernels returned.
    """
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    is_card = device.type == "cuda"
    with profiler(activities=[ProfilerActivity.CUDA if is_card else ProfilerActivity.CPU]) as recorded:
        run()
        if is_card:
            torch.cuda.synchronize(device)
    spent = [
        (one.self_device_time_total if is_card else one.self_cpu_time_total, one) for one in recorded.key_averages()
    ]
    ordered = sorted(spent, key=lambda pair: -pair[0])[:most]
    whole_us = sum(us for us, _one in spent)
    return [
        {"kernel": one.key[:120], "calls": one.count, "us": round(us, 1), "share": round(us / whole_us, 4)}
        for us, one in ordered
    ]
