"""What the switches of the launch tables are predicted to save on an H200: programs, machine code, microseconds.

`python kernels/bench/gains.py --record` compiles each kernel of a denoising step for sm_90 with and without each gain
of `table_gains.py` and writes `results/gains.json`, without `--record` one in `measured/`. Times are arithmetic
(`predicted_time.py`): they show which gain is worth a measurement, and `make gpu-report` measures it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import full_size
import roofline
import torch
import triton
from cross_compile import per_weight
from dgemma_engine.tools.evaluation.provenance import provenance
from dgemma_kernels.launch import launch_table
from dgemma_kernels.launch.launch_table import LaunchTable
from machine_code import described, disassembled, matrix_loops
from predicted_time import ASSUMED, Compiled, num_programs, predicted_us, resident
from recorded_launch import Launch, record
from result_folder import add_record
from table_gains import GAINS, together

ARCHITECTURE = 90
# Formats of whole models: of their experts, and of their dense matrices.
MODELS = {"bf16": ("plain", "plain"), "fp8": ("fp8", "fp8"), "int4": ("int4", "int8")}
SLIDING, FULL, LAYERS = roofline.NUM_SLIDING, roofline.NUM_FULL, roofline.NUM_LAYERS
# Operations that no gain changes -> the kernels that each launches; the roofline has their floors.
OTHERS = {
    "add_norm": 1, "merge_norm": 1, "norm_rotary.sliding": 1, "norm_rotary.full": 1, "gated_gelu": 1,
    "distribution": 2, "soft_embeddings": 2,
}  # fmt: skip


def calls_of(model: str) -> dict[str, int]:
    """Returns the calls of a step whose kernels are predicted, by the case of `full_size`."""
    experts, dense = MODELS[model]
    linears = {"qkv_sliding": SLIDING, "o_sliding": SLIDING, "qkv_full": FULL, "o_full": FULL}
    linears |= {"dense_up": LAYERS, "dense_down": LAYERS}
    found = {f"linear.{dense}.{name}": calls for name, calls in linears.items()}
    found |= {f"experts.{experts}.canvas": LAYERS, "linear.plain.lm_head": 1}
    return found | {"attention.canvas.256": SLIDING, "attention.canvas.512": FULL}


@dataclass(slots=True)
class Compiler:
    """Compiles each variant of a kernel once."""

    _known: dict[str, tuple[Compiled, dict[str, Any]]] = field(
        default_factory=dict[str, tuple[Compiled, dict[str, Any]]]
    )

    def of(self, launch: Launch) -> tuple[Compiled, dict[str, Any]]:
        """Returns a compiled launch, and its figures."""
        parts = {name: str(getattr(value, "dtype", value)) for name, value in launch.arguments.items()}
        key = json.dumps([launch.name, parts, launch.options])
        if key not in self._known:
            print(f"{launch.name} {launch.options}", file=sys.stderr)
            kernel, log = launch.compile(ARCHITECTURE)
            sass, figures = disassembled(kernel), described(kernel, log)
            compiled = Compiled(
                registers=figures["registers"], shared_bytes=figures["shared_bytes"], loops=tuple(matrix_loops(sass))
            )
            self._known[key] = compiled, figures | per_weight(launch, sass)
        return self._known[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """Predicts calls and steps.

    Attributes:
        compiler: of all kernels.
    """

    compiler: Compiler

    def launches(self, case: str, table: LaunchTable) -> list[dict[str, Any]]:
        """Returns figures and microseconds of each launch of a call."""
        (found,) = (one for one in full_size.cases() if one.name == case)
        call = found.prepare(torch.device("meta"))
        return [self._figures(launch) for launch in record(lambda: call(table))]

    def step_ms(self, model: str, table: LaunchTable) -> float:
        """Returns the milliseconds of a step of a model."""
        us = {case: sum(one["us"] for one in self.launches(case, table)) for case in calls_of(model)}
        whole = sum(us[case] * calls for case, calls in calls_of(model).items())
        floors = {work.name: work for work in roofline.works()}
        for name, kernels in OTHERS.items():
            whole += floors[name].calls * (floors[name].floor_us + kernels * ASSUMED["node_us"])
        dense = MODELS[model][1]
        mlp_us = us[f"linear.{dense}.dense_up"] + us[f"linear.{dense}.dense_down"] + floors["gated_gelu"].floor_us
        hidden = min(mlp_us, ASSUMED["route_us"]) if table.of("pass")["ROUTE_BESIDE"] else 0.0
        whole += LAYERS * (ASSUMED["route_us"] - hidden)
        whole += ASSUMED["host_us"] - (ASSUMED["hidden_host_us"] if table.of("pass")["RENOISE_AHEAD"] else 0.0)
        return whole / 1e3

    def _figures(self, launch: Launch) -> dict[str, Any]:
        compiled, figures = self.compiler.of(launch)
        chosen = ("registers", "shared_bytes", "spill_store_bytes", "loop_waits", "instructions_per_weight")
        return {
            "kernel": launch.name,
            "programs": num_programs(launch),
            "resident": resident(compiled, launch.options["num_warps"]),
            **{name: figures[name] for name in chosen if name in figures},
            "loop_instructions": [loop.instructions for loop in compiled.loops],
            "skipped_instructions": [loop.skipped_instructions for loop in compiled.loops],
            "us": round(predicted_us(launch, compiled), 2),
        }


def changed_calls(predictor: Predictor, table: LaunchTable, changes: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Returns the calls that a gain changes, without and with it."""
    cases = {case: calls for model in MODELS for case, calls in calls_of(model).items()}
    found: dict[str, Any] = {}
    for case, calls in cases.items():
        pair = [predictor.launches(case, one) for one in (table, table.changed(changes))]
        if pair[0] != pair[1]:
            found[case] = {"calls": calls, "without": pair[0], "with": pair[1]}
    return found


def main() -> None:
    """Writes the JSON and prints it."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_record(parser)
    folder = parser.parse_args().out
    table, predictor = launch_table.read(f"sm_{ARCHITECTURE}"), Predictor(compiler=Compiler())
    before = {model: predictor.step_ms(model, table) for model in MODELS}
    gains: dict[str, Any] = {}
    for name, changes in GAINS.items():
        saved = {model: round(ms - predictor.step_ms(model, table.changed(changes)), 3) for model, ms in before.items()}
        gains[name] = {
            "changes": changes,
            "saves_ms_per_step": saved,
            "calls": changed_calls(predictor, table, changes),
        }
    after = {model: predictor.step_ms(model, table.changed(together())) for model in MODELS}
    whole = {
        "benchmark": "gains",
        **provenance("cpu"),
        "triton": triton.__version__,
        "assumed": ASSUMED,
        "ms_per_step": {
            model: {"without": round(before[model], 2), "with": round(after[model], 2)} for model in MODELS
        },
        "gains": gains,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gains.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(whole))


if __name__ == "__main__":
    main()
