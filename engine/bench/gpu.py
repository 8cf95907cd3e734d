"""What a model of the released one's size costs on the GPU at hand, with random weights: one command, one JSON.

`results` has a row for each case and format: whole canvases with a fixed number of steps (comparable with vLLM's
published figure: a canvas of 256 behind 1,024 tokens, 16 steps, the commit included), with the stop rule, a prompt of
2,000 tokens, an inline completion end to end (`steps` passes of `ms_per_step`), long contexts, and memory.
`ratio_to_transformers` compares with `transformers` in bfloat16, in turn in one process. `kernels` measures each kernel
against the rates that the card reaches.

Parts run in processes of their own, which are ended when they take too long, and every case has a guard: what fails is
told in `failed` and takes nothing else along. `--tiny` runs the whole path on a processor with a model of a few
thousand weights; its times mean nothing.

    python engine/bench/gpu.py [--out DIR] [--formats fp8,int4]      # then: python engine/bench/gpu_table.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import gpu_kernels
import record
import torch
from dgemma_engine.cache import PromptCache
from dgemma_engine.config import ModelConfig
from dgemma_engine.evaluation.provenance import provenance
from dgemma_engine.ops import Ops
from dgemma_engine.quantization.formats import Format
from gpu_cases import Bench, Sizes, distinct_experts, row, seconds
from gpu_model import Peer, random_model, released, tiny
from gpu_result import Result, in_process

# Seconds for all parts, and for one of them: the whole stays under eight minutes.
BUDGET_S, PART_S = 450.0, 170.0
NO_GPU = "bench-gpu measures on a CUDA device and there is none; --tiny runs its whole path on a processor"
PLAIN, KERNELS, COMPARISON, FIXED = "bf16", "kernels", "in turn with transformers", "fixed steps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is measured on what."""

    device: torch.device
    config: ModelConfig
    ops: Ops
    sizes: Sizes
    formats: tuple[str, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of what runs in a process each."""
        return (KERNELS, *self.formats, COMPARISON)


def main() -> int:
    """Returns 1 where there is nothing to measure on, or no case ran."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    record.add_destination(parser)
    parser.add_argument("--formats", default="fp8,int4", help=f"of {PLAIN}, {', '.join(Format)}")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    args = parser.parse_args()
    formats = tuple(args.formats.split(","))
    if args.tiny:
        device, config, ops, sizes = torch.device("cpu"), tiny(), Ops.fused_reference(), TINY
    elif torch.cuda.is_available():
        device, config, ops, sizes = torch.device("cuda"), released(), Ops.triton(), Sizes()
    else:
        print(NO_GPU, file=sys.stderr)
        return 1
    setting = Setting(device=device, config=config, ops=ops, sizes=sizes, formats=formats)
    if args.part:
        run_part(args.part, setting, Result(path=args.out))
        return 0
    started = time.monotonic()
    tiny_option = ["--tiny"] if args.tiny else []
    command = [sys.executable, __file__, *tiny_option, "--formats", args.formats]
    result = gather(setting, lambda part, path, limit_s: in_process(command, part, path, limit_s))
    name = "gpu_tiny" if args.tiny else "gpu"
    write(name, result, setting, args.out, time.monotonic() - started)
    return 0 if result.rows else 1


def gather(setting: Setting, start: Callable[[str, Path, float], str | None]) -> Result:
    """Runs all parts and returns what they measured.

    Args:
        setting: what is measured.
        start: runs a part, which saves to a path, within so many seconds; returns what went wrong.
    """
    result, started = Result(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dgemma-") as folder:
        for part in setting.parts:
            left_s = BUDGET_S - (time.monotonic() - started)
            path = Path(folder) / f"{part}.json"
            wrong = start(part, path, min(PART_S, left_s)) if left_s > 0 else "left out: no time was left"
            if path.exists():
                result.add(json.loads(path.read_text(encoding="utf-8")))
            if wrong is not None:
                result.fail(f"part {part}", "", wrong)
    ratios = result.more.get("transformers_ms_per_step_over", {})
    for entry in result.rows:
        if entry["case"] == FIXED and entry["format"] in ratios:
            entry["ratio_to_transformers"] = ratios[entry["format"]]
    return result


def run_part(part: str, setting: Setting, result: Result) -> None:
    """Runs the cases of one part."""
    if part == KERNELS:
        if setting.device.type == "cuda":
            result.guard(KERNELS, "", lambda: kernels(result, setting.device))
    elif part == COMPARISON:
        result.guard(COMPARISON, PLAIN, lambda: compare(setting, result))
    else:
        made: list[Bench] = []

        def make() -> list[dict[str, Any]]:
            made.append(bench_of(setting, part))
            return []

        if result.guard("weights", part, make):
            cases(made[0], result)
    result.save()


def bench_of(setting: Setting, form: str) -> Bench:
    """Returns the measurements of a model with random weights."""
    chosen = None if form == PLAIN else Format(form)
    model = random_model(setting.config, setting.ops, chosen, setting.device, torch.bfloat16)
    return Bench(model, form, setting.sizes)


def cases(bench: Bench, result: Result) -> None:
    """Runs the cases of one model."""
    named: dict[str, Callable[[], list[dict[str, Any]]]] = {
        FIXED: bench.fixed,
        "inline completion": bench.inline,
        "prefill": bench.prefill,
        "distinct experts": lambda: experts(bench, result),
        "adaptive steps": bench.adaptive,
        **{f"long context {size}": lambda size=size: bench.long_context(size) for size in bench.sizes.long_prompts},
    }
    for name, run in named.items():
        bench.let_go()
        result.guard(name, bench.form, run)


def experts(bench: Bench, result: Result) -> list[dict[str, Any]]:
    """Keeps how many experts a canvas touches in each layer."""
    touched = distinct_experts(bench.model, bench.prompt(bench.sizes.prompt), bench.sizes.canvas)
    result.more.setdefault("distinct_experts", {})[bench.form] = touched
    return []


def kernels(result: Result, device: torch.device) -> list[dict[str, Any]]:
    """Keeps each kernel's time beside its floor; returns a row for each operation of a step."""
    result.more["rates"] = rates = gpu_kernels.rates(device)
    found, failed = gpu_kernels.measured(device, rates)
    result.more["kernels"] = found
    result.failed += failed
    return [
        row(f"component {one['kernel']}", "", Sizes(), ms_per_step=one["ms_per_step"], prompt_tokens=Sizes().prompt)
        for one in found
    ]


def compare(setting: Setting, result: Result) -> list[dict[str, Any]]:
    """Fills one canvas with the fixed steps in turn by `transformers` and by each format that fits beside it."""
    sizes, spent = setting.sizes, dict[str, list[float]]()
    peer = Peer(setting.config, setting.device, torch.bfloat16)
    benches, prompts = dict[str, Bench](), dict[str, PromptCache]()
    for form in reversed(setting.formats):
        try:
            benches[form] = bench_of(setting, form)
            prompts[form] = benches[form].prompt(sizes.prompt)
        except torch.OutOfMemoryError as error:
            benches.pop(form, None)
            result.fail(COMPARISON, form, f"does not fit beside transformers: {error}")
    generator = torch.Generator().manual_seed(6)
    prompt_1T = torch.randint(0, setting.config.vocab_size, (1, sizes.prompt), generator=generator)
    block = [1] * sizes.canvas

    for seed in range(3):
        for form, bench in benches.items():
            once_s = bench.canvas_seconds(prompts[form], sizes.prompt, block, seed)
            spent.setdefault(form, []).append(once_s)
        kept = peer.encoded(prompt_1T)
        run = partial(peer.generate, prompt_1T, kept, sizes.canvas, sizes.fixed_steps)
        spent.setdefault("", []).append(seconds(setting.device, run))
    whole_s = statistics.median(spent.pop("")[1:])
    result.more["transformers_ms_per_step_over"] = {
        form: round(whole_s / statistics.median(values[1:]), 2) for form, values in spent.items()
    }
    entry = row(
        "transformers, fixed steps", PLAIN, sizes, ms_per_step=round(whole_s * 1e3 / sizes.fixed_steps, 3),
        tokens_per_s=round(sizes.canvas / whole_s, 1), steps=sizes.fixed_steps, prompt_tokens=sizes.prompt,
        ratio_to_transformers=1.0,
    )  # fmt: skip
    return [entry]


def write(name: str, result: Result, setting: Setting, folder: Path, spent_s: float) -> None:
    """Writes the JSON and prints it."""
    whole = {
        "benchmark": name,
        **provenance(str(setting.device)),
        "triton": installed("triton"),
        "transformers": installed("transformers"),
        "results": result.rows,
        "failed": result.failed,
        **result.more,
        "seconds": round(spent_s, 1),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(whole))


TINY = Sizes(
    canvas=16, prompt=12, fixed_steps=2, prefill=20, inline_prompt=20, inline_tokens=8, long_prompts=(40,), rounds=1,
    inline_rounds=2,
)  # fmt: skip


def installed(name: str) -> str | None:
    """Returns a distribution's version."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
