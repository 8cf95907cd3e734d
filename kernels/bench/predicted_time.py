"""The time of one launch on an H200, by arithmetic on its programs and its machine code; nothing is measured.

A multiprocessor runs its programs in turn, several at once as far as registers and shared memory allow. Each is busy
for as long as the instructions of its loop take to issue, and waits for loads that nothing in it hides: those before
the loop, and scales that are loaded where they are used. A launch takes the longest of that, of its bytes at the card's
rate and of its products at the card's rate, the last two divided by the share of the card that has work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dgemma_kernels.tensors.formats import GROUP
from full_size import CANVAS, NUM_EXPERTS, STORED, WINDOW
from machine_code import WARP, Loop
from recorded_launch import Launch
from roofline import BYTES_PER_SECOND, FLOPS
from torch import Tensor

ASSUMED: dict[str, float] = {
    "multiprocessors": 132,
    "clock_hz": 1.7e9,
    "schedulers": 4,
    "registers": 65_536,
    "shared_bytes": 233_472,
    "threads": 2_048,
    "bytes_per_second": BYTES_PER_SECOND,
    "bf16_flops": FLOPS["bf16"],
    "fp8_flops": FLOPS["fp8"],
    # Of a load from memory, and of one that the L2 cache holds.
    "memory_latency_us": 0.6,
    "cache_latency_us": 0.3,
    # Between two kernels of a captured graph.
    "node_us": 1.2,
    "route_us": 30.0,
    "host_us": 400.0,
    # The part of `host_us` that `RENOISE_AHEAD` hides.
    "hidden_host_us": 300.0,
}
# Loads that a program makes one after another before its loop: expert, tile and assignments, then the first weights.
_LOADS_BEFORE = {"experts_kernel": 4, "linear_kernel": 1, "attention_kernel": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A compiled launch.

    Attributes:
        registers: of a thread.
        shared_bytes: of a program.
        loops: that multiply matrices.
    """

    registers: int
    shared_bytes: int
    loops: tuple[Loop, ...]


def predicted_us(launch: Launch, compiled: Compiled) -> float:
    """Returns the microseconds of one launch, with the gap after the launch before."""
    a, programs = launch.arguments, num_programs(launch)
    memory_us = 1e6 * bytes_moved(launch) / BYTES_PER_SECOND
    peak = FLOPS["fp8" if a.get("FORMAT") == "fp8" else "bf16"]
    math_us = 1e6 * flops(launch) / peak
    fill = filled(programs)
    return max(memory_us / fill, math_us / fill, busy_us(launch, compiled, programs)) + ASSUMED["node_us"]


def filled(programs: int) -> float:
    """Returns the share of the card that has work, if every multiprocessor's programs take the same time."""
    each = ASSUMED["multiprocessors"]
    return programs / (math.ceil(programs / each) * each)


def num_programs(launch: Launch) -> int:
    """Returns the programs that have work: of the experts' tiles one for each expert, as random tokens choose them."""
    if launch.name != "experts_kernel":
        return launch.num_programs
    return launch.num_programs // len(launch.arguments["tile_expert_ptr"]) * NUM_EXPERTS


def busy_us(launch: Launch, compiled: Compiled, programs: int) -> float:
    """Returns how long the multiprocessor with the most programs issues instructions and waits; 0 without a loop."""
    turns = loop_turns(launch)
    if not turns:
        return 0.0
    warps = launch.options["num_warps"]
    # Storing a block is left out, after a loop and within one.
    counts = [loop.instructions - loop.skipped_instructions for loop in compiled.loops]
    # Two loops: stored keys, then the pass's own. Of one loop unrolled by the compiler the copies are alike.
    own = counts[-1] if len(counts) == len(turns) else min(counts)
    instructions = sum(number * count for number, count in zip(turns, [*counts[: len(turns) - 1], own], strict=True))
    issue_us = 1e6 * instructions * warps / (ASSUMED["schedulers"] * ASSUMED["clock_hz"])
    wait_us = _LOADS_BEFORE[launch.name] * ASSUMED["cache_latency_us"] + ASSUMED["memory_latency_us"]
    wait_us += unhidden_us(launch, sum(turns))
    each = math.ceil(programs / ASSUMED["multiprocessors"])
    together = min(resident(compiled, warps), each)
    return math.ceil(each / together) * max(together * issue_us, issue_us + wait_us)


def unhidden_us(launch: Launch, turns: int) -> float:
    """Returns how long a program waits for scales: one load for each group of 64 inputs that it multiplies."""
    a = launch.arguments
    if launch.name not in ("experts_kernel", "linear_kernel") or a.get("AHEAD") or a["FORMAT"] == "plain":
        return 0.0
    if a["FORMAT"] == "fp8":
        # Scales of rows, which all programs of a tile share; dense fp8 products have none in the loop.
        latency_us = ASSUMED["cache_latency_us"] if launch.name == "experts_kernel" else 0.0
    else:
        latency_us = ASSUMED["memory_latency_us"]
    return turns * (a["BLOCK_K"] // GROUP) * latency_us


def resident(compiled: Compiled, warps: int) -> int:
    """Returns how many programs a multiprocessor holds at once."""
    threads = warps * WARP
    limits = [
        ASSUMED["registers"] // (compiled.registers * threads),
        ASSUMED["shared_bytes"] // max(1, compiled.shared_bytes),
        ASSUMED["threads"] // threads,
    ]
    return max(1, int(min(limits)))


def loop_turns(launch: Launch) -> list[int]:
    """Returns the turns of each loop of one program."""
    a = launch.arguments
    if launch.name == "experts_kernel":
        return [math.ceil(a["num_inputs"] / a["BLOCK_K"]) * a["EACH"]]
    if launch.name == "linear_kernel":
        inputs = a["num_inputs"] if a["partial_ptr"] is None else a["share"]
        return [math.ceil(inputs / a["BLOCK_K"])]
    if launch.name == "attention_kernel":
        stretches = [keys(launch)] if a["LOOPS"] == 1 else [keys(launch) - CANVAS, CANVAS]
        splits = len(a["total_ptr"]) if a["SPLIT"] else 1
        return [math.ceil(math.ceil(length / a["BLOCK_S"]) / splits) for length in stretches]
    return []


def keys(launch: Launch) -> int:
    """Returns the keys that a canvas's query sees."""
    return (min(STORED, WINDOW - 1) if launch.arguments["HEAD"] == 256 else STORED) + CANVAS


def bytes_moved(launch: Launch) -> int:
    """Returns the bytes that a launch reads and writes: its tensors, and the keys and values at stored addresses."""
    moved = sum(
        value.numel() * value.element_size() for value in launch.arguments.values() if isinstance(value, Tensor)
    )
    if launch.name == "attention_kernel":
        num_kv = launch.arguments["num_heads"] // launch.arguments["SHARED"]
        moved += 2 * 2 * num_kv * launch.arguments["HEAD"] * keys(launch)
    return moved


def flops(launch: Launch) -> float:
    """Returns the operations of a launch's products."""
    a: dict[str, Any] = launch.arguments
    if launch.name == "experts_kernel":
        return 2.0 * len(a["assignment_ptr"]) * a["num_inputs"] * a["num_features"]
    if launch.name == "linear_kernel":
        return 2.0 * a["num_rows"] * a["num_inputs"] * a["num_outputs"]
    if launch.name == "attention_kernel":
        return 4.0 * a["num_tokens"] * a["num_heads"] * a["HEAD"] * keys(launch)
    return 0.0
