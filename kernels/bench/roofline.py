"""The least that one denoising step must read and multiply, kernel by kernel, and the time one card needs for it.

`python kernels/bench/roofline.py --record` writes `results/roofline.json`, without `--record` one in `measured/`.
Arithmetic only: a canvas of 256 positions, a prompt of 1,024, tokens that choose experts at random. The card is an H200
as published measurements have it: 4.3 TB/s, 780 TFLOP/s in bf16; 1.5 PFLOP/s in fp8 is the assumption of the plan in
`docs/KERNELS.md`. `together` holds the floors of one pass over several users' canvases, and how many times as fast it
is as one pass for each user.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

from dgemma_engine.tools.evaluation.provenance import provenance
from full_size import CANVAS, DENSE, HIDDEN, INNER, NUM_EXPERTS, NUM_HEADS, NUM_SELECTED, STORED, VOCAB, WINDOW
from result_folder import add_record

BYTES_PER_SECOND = 4.3e12
FLOPS = {"bf16": 780e12, "fp8": 1500e12}
NUM_SLIDING, NUM_FULL = 25, 5
NUM_LAYERS = NUM_SLIDING + NUM_FULL
BYTES_PER_EXPERT_WEIGHT = {"plain": 2.0, "fp8": 1.0, "int8": 1.0 + 2 / 64, "int4": 0.5 + 2 / 64, "nvfp4": 0.5 + 1 / 16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One operation of a step.

    Attributes:
        name: of the operation, with the format where there are several.
        calls: in a step.
        bytes_read_written: of one call.
        flops: of one call; 0 where they do not matter.
        peak: which of the card's matrix figures applies.
    """

    name: str
    calls: int
    bytes_read_written: float
    flops: float = 0.0
    peak: str = "bf16"

    @property
    def floor_us(self) -> float:
        """Least microseconds of one call."""
        return 1e6 * max(self.bytes_read_written / BYTES_PER_SECOND, self.flops / FLOPS[self.peak])


def works(canvas: int = CANVAS, num_users: int = 1) -> list[Work]:
    """Returns every operation of a step; alternatives carry their format's name.

    Args:
        canvas: positions of each user's canvas.
        num_users: users whose canvases make one pass, each over a prompt of its own.
    """
    num_rows = canvas * num_users
    row = num_rows * HIDDEN
    num_chosen = NUM_EXPERTS * (1 - (1 - NUM_SELECTED / NUM_EXPERTS) ** num_rows)
    expert_weights = num_chosen * 3 * INNER * HIDDEN
    expert_flops = 2 * num_rows * NUM_SELECTED * 3 * INNER * HIDDEN
    parts = num_rows * NUM_SELECTED * HIDDEN * 2
    sliding = HIDDEN * (16 + 16) * 256 + NUM_HEADS * 256 * HIDDEN
    full = HIDDEN * (16 + 2) * 512 + NUM_HEADS * 512 * HIDDEN
    found = [
        Work(
            name=f"experts.{name}",
            calls=NUM_LAYERS,
            bytes_read_written=expert_weights * size + row * 2 + parts,
            flops=expert_flops,
            peak="fp8" if name == "fp8" else "bf16",
        )
        for name, size in BYTES_PER_EXPERT_WEIGHT.items()
    ]
    for name, size in (("plain", 2), ("fp8", 1)):
        peak = "fp8" if name == "fp8" else "bf16"
        for kind, calls, weights in (("sliding", NUM_SLIDING, sliding), ("full", NUM_FULL, full)):
            found.append(_dense(f"attention_projections.{kind}.{name}", calls, weights, size, peak, num_rows))
        found.append(_dense(f"dense_mlp.{name}", NUM_LAYERS, 3 * HIDDEN * DENSE, size, peak, num_rows))
    for kind, calls, num_kv, head, keys in (
        ("sliding", NUM_SLIDING, 8, 256, min(STORED, WINDOW - 1) + canvas),
        ("full", NUM_FULL, 2, 512, STORED + canvas),
    ):
        moved = num_users * 2 * 2 * num_kv * head * keys + 2 * 2 * num_rows * NUM_HEADS * head
        flops = 4 * num_rows * NUM_HEADS * head * keys
        found.append(Work(name=f"attention.{kind}", calls=calls, bytes_read_written=moved, flops=flops))
    logits = num_rows * VOCAB * 2
    embed = VOCAB * HIDDEN * 2
    found += [
        Work(name="add_norm", calls=NUM_LAYERS, bytes_read_written=row * (2 + 2 + 2 + 1 + 1 + 2)),
        Work(name="merge_norm", calls=NUM_LAYERS, bytes_read_written=parts + row * (2 + 2 + 2 + 1)),
        Work(name="norm_rotary.sliding", calls=NUM_SLIDING, bytes_read_written=2 * 2 * num_rows * 32 * 256),
        Work(name="norm_rotary.full", calls=NUM_FULL, bytes_read_written=2 * 2 * num_rows * 20 * 512),
        Work(name="gated_gelu", calls=NUM_LAYERS, bytes_read_written=num_rows * DENSE * (4 + 1)),
        Work(
            name="route",
            calls=NUM_LAYERS,
            bytes_read_written=row * 2 + NUM_EXPERTS * HIDDEN * 2,
            flops=2 * row * NUM_EXPERTS,
        ),
        Work(
            name="lm_head",
            calls=1,
            bytes_read_written=embed + row * 2 + logits,
            flops=2 * num_rows * VOCAB * HIDDEN,
        ),
        Work(name="distribution", calls=1, bytes_read_written=3 * logits),
        Work(
            name="soft_embeddings",
            calls=1,
            bytes_read_written=embed + logits + row * 2,
            flops=2 * num_rows * VOCAB * HIDDEN,
        ),
    ]
    return found


def _dense(name: str, calls: int, weights: int, size: int, peak: str, num_rows: int) -> Work:
    return Work(name=name, calls=calls, bytes_read_written=weights * size, flops=2 * num_rows * weights, peak=peak)


def together() -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Returns a step of several users' canvases in one pass: its floor, and the gain over one after another.

    By format of the experts, positions of a canvas, and users.
    """
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for experts, dense in (("plain", "plain"), ("fp8", "fp8"), ("int4", "plain")):
        for canvas in (100, CANVAS):
            alone_ms = _step_ms(works(canvas), experts, dense)
            steps_ms = {users: _step_ms(works(canvas, users), experts, dense) for users in (1, 2, 4, 8)}
            found.setdefault(experts, {})[str(canvas)] = {
                str(users): {"floor_ms_per_step": round(step, 2), "times_turns": round(users * alone_ms / step, 2)}
                for users, step in steps_ms.items()
            }
    return found


def _step_ms(operations: list[Work], experts: str, dense: str) -> float:
    """Returns the floor of a step with experts in one format and dense matrices in another."""
    alternatives = {f"experts.{name}" for name in BYTES_PER_EXPERT_WEIGHT} - {f"experts.{experts}"}
    unused = "fp8" if dense == "plain" else "plain"
    chosen = [
        work
        for work in operations
        if work.name not in alternatives
        and not (work.name.startswith(("attention_projections", "dense_mlp")) and work.name.endswith(f".{unused}"))
    ]
    return sum(work.floor_us * work.calls for work in chosen) / 1e3


def main() -> None:
    """Writes the JSON and prints it."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_record(parser)
    folder = parser.parse_args().out
    results = [
        {
            "name": work.name,
            "calls": work.calls,
            "megabytes": round(work.bytes_read_written / 1e6, 2),
            "gigaflops": round(work.flops / 1e9, 2),
            "floor_us": round(work.floor_us, 2),
            "floor_ms_per_step": round(work.floor_us * work.calls / 1e3, 3),
            "bound": "memory" if work.bytes_read_written / BYTES_PER_SECOND > work.flops / FLOPS[work.peak] else "math",
        }
        for work in works()
    ]
    whole = {
        "benchmark": "roofline",
        **provenance("cpu"),
        "bytes_per_second": BYTES_PER_SECOND,
        "results": results,
        "together": together(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "roofline.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(whole))


if __name__ == "__main__":
    main()
