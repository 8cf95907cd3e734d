"""Each kernel at full size against the card's own rates: reading memory, and multiplying in 16 and 8 bits.

A kernel's floor is the larger of two times: what it must read and write at the rate measured here, and what it must
multiply at the rate measured here (`kernels/bench/roofline.py` counts both).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from dgemma_kernels.launch.launch_table import for_device

sys.path.insert(0, str(Path(__file__).parents[3] / "kernels/bench"))
READ_BYTES, PRODUCT_SIZE = 2**31, 8_192

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
    "distribution": ("distribution",),
    "soft_embeddings": ("soft_embeddings",),
}


def rates(device: torch.device, *, read_bytes: int = READ_BYTES, size: int = PRODUCT_SIZE) -> dict[str, float | None]:
    """Returns bytes per second and operations per second of the card, as its vendor's library reaches them."""
    from cold_timing import replayed, timed

    def seconds(run: Callable[[], object]) -> float:
        run()
        return replayed(run, device) if device.type == "cuda" else timed(run)

    found: dict[str, float | None] = {}
    found["bytes_per_second"] = read_bytes / seconds(torch.ones(read_bytes // 4, device=device).sum)
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    found["bf16_flops"] = 2 * size**3 / seconds(lambda: a @ b)
    try:
        one = torch.ones((), device=device)
        a8, b8 = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t()
        product = lambda: torch._scaled_mm(a8, b8, one, one, out_dtype=torch.bfloat16)  # noqa: E731  # pyright: ignore
        found["fp8_flops"] = 2 * size**3 / seconds(product)
    except (RuntimeError, AttributeError, TypeError):
        found["fp8_flops"] = None
    return found


def works() -> list[Any]:
    """Returns the operations of a step, those of the first models measured first."""
    import roofline

    return sorted(roofline.works(), key=lambda work: work.name.rpartition(".")[2] in ("plain", "int8", "nvfp4"))


def measured(work: Any, device: torch.device, found: Mapping[str, float | None]) -> dict[str, Any]:
    """Returns the time of an operation of a step beside its floor.

    Args:
        work: of `works`.
        device: where it runs.
        found: the card's rates.
    """
    import full_size
    from cold_timing import ColdCalls

    cases, table = {case.name: case for case in full_size.cases()}, for_device(device)
    spent_s, copies = 0.0, list[int]()
    for name in CALLS_OF[work.name]:
        calls = ColdCalls(cases[name], device)
        spent_s += calls.seconds(table)
        copies.append(calls.num_copies)
    peak = found[f"{work.peak}_flops"] or found["bf16_flops"]
    assert peak is not None and found["bytes_per_second"] is not None
    floor_s = max(work.bytes_read_written / found["bytes_per_second"], work.flops / peak)
    return {
        "calls": work.calls,
        "us": round(spent_s * 1e6, 2),
        "floor_us": round(floor_s * 1e6, 2),
        "share_of_roofline": round(floor_s / spent_s, 3),
        "read_bandwidth_share": round(work.bytes_read_written / found["bytes_per_second"] / spent_s, 3),
        "ms_per_step": round(spent_s * work.calls * 1e3, 3),
        "copies": copies,
    }
