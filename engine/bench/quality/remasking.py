"""What masking committed tokens again gives: holes filled with and without it, by one model, in as many steps.

    python engine/bench/quality/remasking.py [--model FOLDER] [--minutes M] [--llama GGUF]

The tiny Qwen2 of `masked_model` is trained for M minutes of a core, or taken from FOLDER; `--llama` takes a Llama with
a canvas adapter beside it instead. A hole is a whole function of 48 tokens between others, and its length is given.
Many functions fit, and a fill is right if it is one of them: tokens that are committed together, or too early, do not
agree. For a Llama it is a piece of a file of the standard library, and right is what stood there.
With re-masking a step commits twice the tokens and masks up to half of them again, so that a run that spends this
budget takes the same number of steps at the same temperatures. A difference comes with a 95 % interval over holes.
"""

from __future__ import annotations

import argparse
import random
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import masked_model
import record
import torch
from dgemma_engine.diffusion import canvas
from dgemma_engine.diffusion.absorbing_mask import AbsorbingMask, NothingMasked, SurestFirst
from dgemma_engine.diffusion.denoiser import Denoiser, ScoredStep, denoise
from dgemma_engine.diffusion.eager_executor import EagerExecutor
from dgemma_engine.diffusion.sampler import Commitment, Sampler, TemperatureSchedule
from dgemma_engine.diffusion.step_executor import StepExecutor
from dgemma_engine.errors import CheckpointError
from dgemma_engine.families.causal_llama import LlamaFamily
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.family import LoadOptions
from dgemma_engine.families.llama.adapter import Adapters
from dgemma_engine.families.masked.weights import load_masked
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tokenization.tokenizer import Tokenizer
from torch import Tensor

CPU = torch.device("cpu")
PREFIX, MIDDLE, HEAD, NUM_HOLES = 64, 48, 24, 100
STEPS = (4, 8, 16)
# Nats from which a committed token may be masked again: every one, or what the product takes for unsure.
REMASKED_FROM = {"none": None, "all of the budget": 0.0, "above 1 nat": 1.0}
COMMITTED = {"drawn": Commitment.DRAWN, "likeliest": Commitment.FINAL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """Token ids around a hole, and the fills that are right."""

    prefix: list[int]
    head: list[int]
    answers: list[list[int]]


@dataclass(slots=True)
class CountRemasked:
    """Counts the tokens that are masked again; a `StepObserver`."""

    count: int = 0
    committed_RM: Tensor | None = None

    def scored(self, step: ScoredStep, executor: StepExecutor) -> None:
        """See `StepObserver.scored`."""
        self.committed_RM = step.scores.committed_RM

    def renoised(self, accepted_RM: Tensor, executor: StepExecutor) -> None:
        """See `StepObserver.renoised`."""
        assert self.committed_RM is not None, "masks can be told from tokens"
        self.count += int((self.committed_RM & ~accepted_RM).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """For each hole: tokens equal to those of the closest answer, tokens masked again, and steps."""

    right: list[int]
    remasked: list[int]
    steps: list[int]


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    record.add_destination(parser)
    parser.add_argument("--model", type=Path, help="keep the trained model in this folder, or take it from there")
    parser.add_argument("--minutes", type=float, default=12.0, help="of training (default: 12)")
    parser.add_argument("--llama", type=Path, help="a GGUF file with a canvas adapter beside it")
    args = parser.parse_args()
    if args.llama is None:
        with tempfile.TemporaryDirectory() as temporary:
            folder: Path = args.model or Path(temporary)
            about, mask_id = masked_model.trained(folder, args.minutes * 60), masked_model.MASK
            model: DiffusionModel = load_masked(read_facts(folder), Ops.reference(), device=CPU, dtype=torch.float32)
        holes = made_up_holes()
    else:
        model, mask_id, holes = llama(args.llama)
        about = {"model": args.llama.name}
    none, *_budgets = REMASKED_FROM
    runs = {
        (committed, steps, remasked): denoised(model, holes, mask_id, committed, steps, REMASKED_FROM[remasked])
        for committed, steps, remasked in product(COMMITTED, STEPS, REMASKED_FROM)
    }
    settings = [
        {"committed": committed, "steps": steps, "masked_again": remasked} | figures(run, runs[committed, steps, none])
        for (committed, steps, remasked), run in runs.items()
    ]
    record.write("remasking", about | {"holes": len(holes), "middle": MIDDLE, "settings": settings}, args.out)


def made_up_holes() -> list[Hole]:
    """Returns holes of whole functions, each with all functions of its length as answers."""
    random_, backend = random.Random(1), masked_model.tokenizer()
    answers = [ids for text in masked_model.functions() if len(ids := backend.encode(text).ids) == MIDDLE]

    def others(count: int) -> str:
        return "\n\n".join(masked_model.function(random_, masked_model.Split.TRAINING)[0] for _ in range(count))

    def hole() -> Hole:
        prefix, head = (backend.encode(text).ids for text in (f"{others(3)}\n\n", f"\n\n{others(1)}"))
        return Hole(prefix=prefix[-PREFIX:], head=head[:HEAD], answers=answers)

    return [hole() for _ in range(NUM_HOLES)]


def llama(path: Path) -> tuple[DiffusionModel, int, list[Hole]]:
    """Returns a Llama with a canvas, its mask, and holes of the standard library."""
    facts = read_facts(path)
    adapter = Adapters.find(path).canvas
    if adapter is None or adapter.tokens.mask is None:
        raise CheckpointError(f"{path}: no canvas adapter beside it; leave --llama out")
    options = LoadOptions(device=CPU, ops=None, prompt_tokens=PREFIX, report=lambda _percent: None)
    tokenizer, model = LlamaFamily().read_tokenizer(facts), LlamaFamily().load_model(facts, options)
    return model, adapter.tokens.mask, [piece(tokenizer, random.Random(number)) for number in range(NUM_HOLES)]


def piece(tokenizer: Tokenizer, random_: random.Random) -> Hole:
    """Returns a hole from a place in one of the files of the standard library."""
    files, size = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")), PREFIX + MIDDLE + HEAD
    while True:
        text = random_.choice(files).read_text(encoding="utf-8", errors="replace")
        start = random_.randrange(max(1, len(text) - 8 * size))
        ids = tokenizer.encode(text[start : start + 8 * size])[:size]
        if len(ids) == size:
            return Hole(prefix=ids[:PREFIX], head=ids[-HEAD:], answers=[ids[PREFIX:-HEAD]])


@torch.inference_mode()
def denoised(
    model: DiffusionModel, holes: list[Hole], mask_id: int, committed: str, num_steps: int, remasked_from: float | None
) -> Run:
    """Fills holes in a number of steps, with a share committed at each and, with re-masking, as many masked again."""
    share = MIDDLE // num_steps
    acceptance = SurestFirst(num_tokens=share)
    if remasked_from is not None:
        acceptance = SurestFirst(num_tokens=2 * share, num_remasked=share, remask_entropy=remasked_from)
    sampler = Sampler(
        num_steps=num_steps,
        schedule=TemperatureSchedule(t_min=0.0, t_max=1.0),
        acceptance=acceptance,
        noise=AbsorbingMask(mask_id=mask_id),
        stop=NothingMasked(),
        commitment=COMMITTED[committed],
    )
    run = Run(right=[], remasked=[], steps=[])
    for number, hole in enumerate(holes):
        cache = PromptCache(model.config, capacity=2 * PREFIX, dtype=model.dtype, device=CPU)
        model.prefill(torch.tensor([hole.prefix]), cache)
        row = canvas.Row(num_free=MIDDLE, head_ids=tuple(hole.head), seed=number)
        layout = canvas.start([row], sampler.noise, CPU)
        executor = EagerExecutor(model, cache, layout, sampler, suppressed_ids=torch.tensor([mask_id]))
        counter, cancel = CountRemasked(), Cancel(deadline_s=1e9, clock=lambda: 0.0)
        denoiser = Denoiser(executor, sampler, observer=counter)
        done = finished(denoise(denoiser, cancel=cancel, on_step=lambda _denoiser: None))
        fill = done.guesses[0].ids
        right = (sum(one == other for one, other in zip(fill, answer, strict=True)) for answer in hole.answers)
        run.right.append(max(right))
        run.remasked.append(counter.count)
        run.steps.append(done.steps)
    return run


def figures(run: Run, without: Run) -> dict[str, Any]:
    """Returns the figures of a run, and the gain over the one without re-masking with its 95 % bootstrap interval."""
    num_holes, random_ = len(run.right), random.Random(3)
    is_exact, was_exact = ([one == MIDDLE for one in of.right] for of in (run, without))
    differences = [after - before for before, after in zip(was_exact, is_exact, strict=True)]
    means = [sum(random_.choices(differences, k=num_holes)) / num_holes for _ in range(2_000)]
    return {
        "right_tokens": round(sum(run.right) / num_holes / MIDDLE, 4),
        "exact": round(sum(is_exact) / num_holes, 4),
        "steps_made": round(sum(run.steps) / num_holes, 2),
        "tokens_masked_again": round(sum(run.remasked) / num_holes, 2),
        "gain": round(sum(differences) / num_holes, 4),
        "gain_low": round(record.quantile(means, 0.025), 4),
        "gain_high": round(record.quantile(means, 0.975), 4),
    }


if __name__ == "__main__":
    main()
