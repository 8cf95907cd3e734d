"""Each kernel at full size against the card's own rates: reading memory, and multiplying in 16 and 8 bits.

A kernel's floor is the larger of two times: what it must read and write at the rate measured here, and what it must
multiply at the rate measured here (`kernels/bench/roofline.py` counts both).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from dgemma_kernels.launch_table import LaunchTable, for_device

KERNELS_BENCH = str(Path(__file__).parents[2] / "kernels/bench")
READ_BYTES, PRODUCT_SIZE, ROUNDS = 2**31, 8_192, 20

# Work of the roofline -> the calls of `kernels/bench/full_size.py` that do it.
CALLS_OF: dict[str, tuple[str, ...]] = {
    **{f"experts.{form}": (f"experts.{form}.canvas",) for form in ("plain", "fp8", "int8", "int4", "nvfp4")},
    **{
        f"attention_projections.{kind}.{form}": (f"linear.{form}.qkv_{kind}", f"linear.{form}.o_{kind}")
        for kind in ("sliding", "full")
        for form in ("plain", "fp8")
    },
    **{f"dense_mlp.{form}": (f"linear.{form}.dense_up", f"linear.{form}.dense_down") for form in ("plain", "fp8")},
    "attention.sliding": ("attention.canvas.256",),
    "attention.full": ("attention.canvas.512",),
    "add_norm": ("add_norm",),
    "merge_norm": ("merge_norm",),
    "norm_rotary.sliding": ("norm_rotary.256",),
    "norm_rotary.full": ("norm_rotary.512",),
    "gated_gelu": ("gated_gelu",),
    "route": ("route.canvas",),
    "lm_head": ("linear.plain.lm_head",),
    "believe": ("believe",),
    "soft_embeddings": ("soft_embeddings",),
}


def rates(device: torch.device, *, read_bytes: int = READ_BYTES, size: int = PRODUCT_SIZE) -> dict[str, float | None]:
    """Returns bytes per second and operations per second of the card, as its vendor's library reaches them."""
    found: dict[str, float | None] = {}
    found["bytes_per_second"] = read_bytes / seconds(torch.ones(read_bytes // 4, device=device).sum, device)
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    found["bf16_flops"] = 2 * size**3 / seconds(lambda: a @ b, device)
    try:
        one = torch.ones((), device=device)
        a8, b8 = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t()
        product = lambda: torch._scaled_mm(a8, b8, one, one, out_dtype=torch.bfloat16)  # noqa: E731  # pyright: ignore
        found["fp8_flops"] = 2 * size**3 / seconds(product, device)
    except (RuntimeError, AttributeError, TypeError):
        found["fp8_flops"] = None
    return found


def measured(device: torch.device, found: dict[str, float | None]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns a record of each operation of a step, and one of each that failed."""
    if KERNELS_BENCH not in sys.path:
        sys.path.insert(0, KERNELS_BENCH)
    import full_size
    import roofline

    cases, table = {case.name: case for case in full_size.cases()}, for_device(device)
    kernels, failed = list[dict[str, Any]](), list[dict[str, Any]]()
    for work in roofline.works():
        try:
            spent_s = sum(time_of(cases[name], table, device) for name in CALLS_OF[work.name])
        except Exception as error:  # the first run on a card finds what nobody could see: the others go on
            failed.append({"case": f"kernel {work.name}", "format": "", "message": f"{type(error).__name__}: {error}"})
            continue
        peak = found[f"{work.peak}_flops"] or found["bf16_flops"]
        assert peak is not None and found["bytes_per_second"] is not None
        floor_s = max(work.bytes_read_written / found["bytes_per_second"], work.flops / peak)
        kernels.append(
            {
                "kernel": work.name,
                "calls": work.calls,
                "us": round(spent_s * 1e6, 2),
                "floor_us": round(floor_s * 1e6, 2),
                "share_of_roofline": round(floor_s / spent_s, 3),
                "read_bandwidth_share": round(work.bytes_read_written / found["bytes_per_second"] / spent_s, 3),
                "ms_per_step": round(spent_s * work.calls * 1e3, 3),
            }
        )
    return kernels, failed


def time_of(case: Any, table: LaunchTable, device: torch.device) -> float:
    """Returns the median seconds of one call of `full_size`."""
    call = case.prepare(device)
    return seconds(lambda: call(table), device)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Returns the median seconds of `run` on the device, launching left out where there are events to tell."""
    run()
    if device.type != "cuda":
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    spent = list[float]()
    for _ in range(ROUNDS):
        # A pause before it, so that the launch is waiting when the clock starts.
        torch.cuda._sleep(200_000)  # pyright: ignore[reportPrivateUsage]
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize(device)
        spent.append(start.elapsed_time(end) / 1e3)
    return statistics.median(spent)
