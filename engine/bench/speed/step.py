"""Where one denoising step of `tiny` spends its time, and what each design choice is worth.

Alternatives run in turn in one process and medians are compared: ways to draw tokens; ways to multiply by a weight;
number formats, each with both ways to run the experts, and lean; canvas sizes, plain and lean, and compiled where there
is a C++ compiler; thread counts, alone and beside one busy process. One thread is timed in processor time, which leaves
out the time of other processes on the core; thread counts are compared in wall-clock time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
import torch
import torch._inductor.config as inductor
import torch.nn.functional as F
from dgemma_engine.backends.cpu.model import pack_for_cpu
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.checkpoint.loader import load_model
from dgemma_engine.diffusion.token_distribution import VocabularyScorer, sample
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.model_store.catalogue import TINY
from dgemma_kernels import reference
from dgemma_kernels.packing.cpu import PackedGate

PROMPT_TOKENS, CANVAS = 180, 32
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> None:
    """Runs the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--model", type=Path, default=model_folder(TINY))
    args = parser.parse_args()
    with torch.inference_mode():
        torch.set_num_threads(1)
        result: dict[str, Any] = {"prompt_tokens": PROMPT_TOKENS, "canvas": CANVAS, "rounds": args.rounds}
        result["draw_ms"] = in_turn(draws(), args.rounds)
        result["gate_ms"] = in_turn(gates(), args.rounds)
        result["step_ms"] = in_turn(steps(args.model), args.rounds)
        result["parts_ms"] = in_turn(parts(args.model), args.rounds)
        result["layers_ms"] = in_turn(sizes(args.model), args.rounds)
        result["threads_step_ms"] = threads(args.model, args.rounds)
    result["compiled"] = compiled(args.model, args.rounds)
    record.write("step", result, args.out)


def in_turn(
    runs: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Returns the median milliseconds of each run; the first rounds are not counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 5):
        for name, run in runs.items():
            started = clock()
            run()
            times[name].append((clock() - started) * 1e3)
    return {name: round(statistics.median(values[5:]), 3) for name, values in times.items()}


def draws() -> dict[str, Callable[[], object]]:
    """One token for each of 40 positions of 4,096 entries."""
    probs = torch.softmax(torch.randn(40, 4_096), -1)
    return {
        "multinomial": lambda: torch.multinomial(probs, 1),
        "inverse_distribution": lambda: sample(probs, torch.rand(40, 1)),
    }


def as_it_is(model: DiffusionGemma) -> DiffusionModel:
    """Returns `model`."""
    return model


class Case:
    """A model with a prompt in its cache and a canvas."""

    def __init__(
        self,
        folder: Path,
        dtype: torch.dtype,
        *,
        experts: Callable[..., Any] = reference.plain.experts,
        made: Callable[[DiffusionGemma], DiffusionModel] = as_it_is,
        canvas: int = CANVAS,
    ) -> None:
        ops = replace(Ops.reference(), experts=experts)
        self.model: DiffusionModel = made(load_model(folder, ops, device=torch.device("cpu"), dtype=dtype))
        generator = torch.Generator().manual_seed(0)
        vocab_size = self.model.config.vocab_size
        self.prompt = torch.randint(0, vocab_size, (1, PROMPT_TOKENS), generator=generator)
        self.canvas = torch.randint(0, vocab_size, (1, canvas), generator=generator)
        self.cache = self.encode()
        self.hidden = self.model.decode(self.canvas, self.cache)
        self.scorer = VocabularyScorer(self.model, suppressed_ids=torch.tensor([], dtype=torch.int64))
        self.distribution = self.scorer.score(self.hidden[0], 0.7)
        self.soft = self.model.soft_embeddings(self.distribution.probs_NV[None])

    def encode(self) -> PromptCache:
        """Encodes the whole prompt."""
        model = self.model
        cache = PromptCache(
            model.config, capacity=PROMPT_TOKENS + self.canvas.shape[1], dtype=model.dtype, device=model.device
        )
        model.encode(self.prompt, cache)
        return cache

    def look(self) -> torch.Tensor:
        """Runs the layers."""
        return self.model.decode(self.canvas, self.cache, soft_BLD=self.soft)

    def step(self) -> None:
        """Makes one denoising step."""
        distribution = self.scorer.score(self.look()[0], 0.7)
        sample(distribution.probs_NV, torch.rand(len(distribution.probs_NV), 1))
        self.model.soft_embeddings(distribution.probs_NV[None])


def gates() -> dict[str, Callable[[], object]]:
    """The gated inner part of all experts and the MLP for 32 tokens, hidden size 256: 1,280 gates and as many ups."""
    cases: dict[str, Callable[[], object]] = {}
    for name, dtype in FORMATS.items():
        x, gate, up = torch.randn(CANVAS, 256).to(dtype), *torch.randn(2, 1_280, 256).to(dtype)
        both, packed = torch.cat((gate, up)), PackedGate(gate, up)
        cases[f"{name} linear"] = lambda x=x, both=both: reference.plain.gated_gelu(F.linear(x, both))
        cases[f"{name} packed"] = lambda x=x, packed=packed: packed(x)
    return cases


def steps(folder: Path) -> dict[str, Callable[[], object]]:
    """A step in each number format, with experts by group and dense, and by a lean model."""
    ways = {"by group": reference.plain.experts_by_group, "dense": reference.plain.experts_densely}
    cases: dict[str, Callable[[], object]] = {
        f"{name} {way}": Case(folder, dtype, experts=experts).step
        for name, dtype in FORMATS.items()
        for way, experts in ways.items()
    }
    return cases | {f"{name} lean": Case(folder, dtype, made=pack_for_cpu).step for name, dtype in FORMATS.items()}


def sizes(folder: Path) -> dict[str, Callable[[], object]]:
    """The layers alone in bfloat16, by canvas size."""
    return {
        f"{canvas} positions, {name}": Case(folder, torch.bfloat16, made=made, canvas=canvas).look
        for canvas in (32, 64, 128)
        for name, made in {"plain": as_it_is, "lean": pack_for_cpu}.items()
    }


def compiled(folder: Path, rounds: int) -> dict[str, float] | None:
    """The layers of the plain model by `torch.compile` with frozen weights; None without a C++ compiler."""
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return None
    with torch.no_grad(), inductor.patch({"freezing": True, "cpp.threads": 1}):
        case = Case(folder, torch.bfloat16)
        look = torch.compile(case.look)
        started = time.perf_counter()
        look()
        compile_s = time.perf_counter() - started
        lean_look = Case(folder, torch.bfloat16, made=pack_for_cpu).look
        return {"compile_s": round(compile_s, 1)} | in_turn({"compiled": look, "lean": lean_look}, rounds)


def parts(folder: Path) -> dict[str, Callable[[], object]]:
    """The parts of a lean step in bfloat16, and the encoding of a whole prompt."""
    case = Case(folder, torch.bfloat16, made=pack_for_cpu)
    model = case.model
    return {
        "encode prompt": case.encode,
        "layers": case.look,
        "vocabulary": lambda: model.logits(case.hidden),
        "belief": lambda: case.scorer.score(case.hidden[0], 0.7),
        "draw": lambda: sample(case.distribution.probs_NV, torch.rand(CANVAS, 1)),
        "self-conditioning product": lambda: model.soft_embeddings(case.distribution.probs_NV[None]),
        "whole step": case.step,
    }


def threads(folder: Path, rounds: int) -> dict[str, float]:
    """A step with one thread and with one per core, alone and beside a busy process."""
    case = Case(folder, torch.bfloat16, made=pack_for_cpu)
    cores = len(os.sched_getaffinity(0))
    medians: dict[str, float] = {}
    for label, neighbour in (("alone", nullcontext()), ("beside a busy process", busy_neighbour())):
        with neighbour:
            for count in (1, cores):
                torch.set_num_threads(count)
                name = f"{count} threads, {label}"
                medians |= in_turn({name: case.step}, rounds, time.perf_counter)
    torch.set_num_threads(1)
    return medians


@contextmanager
def busy_neighbour() -> Any:
    """Keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
