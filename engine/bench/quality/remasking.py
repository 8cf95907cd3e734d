"""What masking committed tokens again gives: right tokens of a hole with and without it, on the same holes.

    python engine/bench/quality/remasking.py [--llama GGUF] [--minutes M]

`--llama` takes a Llama with a canvas adapter beside it. Without one a Llama of 4 layers is trained first, for M minutes
of a core, on the standard library of the running Python: to denoise 16 masked tokens after 96 given ones and before 8.
Holes come from files that it did not see; their length is given. Settings differ in the budget of `SurestFirst` alone,
and a difference comes with a 95 % interval over holes.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
import torch
import torch.nn.functional as F
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.diffusion import canvas
from dgemma_engine.diffusion.absorbing_mask import AbsorbingMask, NothingMasked, SurestFirst
from dgemma_engine.diffusion.denoiser import Denoiser, denoise
from dgemma_engine.diffusion.eager_executor import EagerExecutor
from dgemma_engine.diffusion.sampler import Sampler, TemperatureSchedule
from dgemma_engine.errors import CheckpointError
from dgemma_engine.families.causal_llama import LlamaFamily
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.family import LoadOptions
from dgemma_engine.families.llama.adapter import Adapters
from dgemma_engine.families.llama.config import LlamaConfig
from dgemma_engine.families.llama.model import LlamaModel
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.graph_kv import GraphKV
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model_store.catalogue import TINY
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tokenization.tokenizer import Tokenizer

CPU = torch.device("cpu")
PREFIX, MIDDLE, HEAD = 96, 16, 8
ROWS, MOST_STEPS, NUM_HOLES = 16, 24, 100
# Tokens committed at each step, and most of them that are masked again.
BUDGETS = {2: (0, 1), 4: (0, 1, 2), 8: (0, 2, 4)}
# The mask token of the tokenizer in the package.
_MASK = 4


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    record.add_destination(parser)
    parser.add_argument("--llama", type=Path, help="a GGUF file with a canvas adapter beside it")
    parser.add_argument("--minutes", type=float, default=2.0, help="of training without --llama (default: 2)")
    args = parser.parse_args()
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    random.Random(0).shuffle(files)
    seen, unseen = files[len(files) // 10 :], files[: len(files) // 10]
    if args.llama is None:
        tokenizer, mask_id = Tokenizer.load(model_folder(TINY)), _MASK
        model, about = trained(tokenizer, seen, args.minutes * 60)
    else:
        facts = read_facts(args.llama)
        adapter = Adapters.find(args.llama).canvas
        if adapter is None or adapter.tokens.mask is None:
            raise CheckpointError(f"{args.llama}: no canvas adapter beside it; leave --llama out")
        tokenizer, mask_id = LlamaFamily().read_tokenizer(facts), adapter.tokens.mask
        options = LoadOptions(device=CPU, ops=None, prompt_tokens=PREFIX, report=lambda _percent: None)
        model, about = LlamaFamily().load_model(facts, options), {"model": args.llama.name}
    random_ = random.Random(1)
    holes = [_pieces(tokenizer, unseen, random_) for _ in range(NUM_HOLES)]
    runs = {
        (num_tokens, num_remasked): denoised(model, holes, mask_id, num_tokens, num_remasked)
        for num_tokens, budgets in BUDGETS.items()
        for num_remasked in budgets
    }
    settings = [_figures(*setting, right, steps) for setting, (right, steps) in runs.items()]
    gains = {
        f"{num_tokens} tokens a step, {num_remasked} masked again": _gain(runs[num_tokens, 0][0], right)
        for (num_tokens, num_remasked), (right, _steps) in runs.items()
        if num_remasked
    }
    record.write(
        "remasking", about | {"holes": NUM_HOLES, "middle": MIDDLE, "settings": settings, "gains": gains}, args.out
    )


def trained(tokenizer: Tokenizer, files: list[Path], seconds: float) -> tuple[LlamaModel, dict[str, Any]]:
    """Returns a small Llama that denoises, in inference mode, and what is to be told of it."""
    config = LlamaConfig(
        vocab_size=8_192, hidden_size=192, intermediate_size=512, num_layers=4, num_attention_heads=6,
        num_key_value_heads=2, head_size=32, rope_theta=10_000.0, rms_norm_eps=1e-5, max_position_embeddings=512,
        bos_token_id=0, eos_token_ids=(0,),
    )  # fmt: skip
    torch.manual_seed(0)
    model, random_ = LlamaModel(config, Ops.reference()), random.Random(2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02) if parameter.ndim > 1 else torch.nn.init.ones_(parameter)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98))
    started, steps, loss = time.process_time(), 0, torch.zeros(())
    while (spent := time.process_time() - started) < seconds:
        ids = torch.tensor([_pieces(tokenizer, files, random_) for _ in range(ROWS)])
        cache, canvas_BL = GraphKV(), ids[:, PREFIX:].clone()
        masked = torch.rand(ROWS, MIDDLE) < torch.rand(ROWS, 1).clamp_(min=0.1)
        canvas_BL[:, :MIDDLE][masked] = _MASK
        model.prefill(ids[:, :PREFIX], cache)
        hidden_BLD = model.decode(canvas_BL, cache)[:, :MIDDLE]
        loss = F.cross_entropy(model.logits(hidden_BLD[masked][None])[0], ids[:, PREFIX : PREFIX + MIDDLE][masked])
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (steps + 1) / 100, 1.05 - spent / seconds)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        steps += 1
    about = {
        "model": "trained here",
        "training_steps": steps,
        "training_s": seconds,
        "last_loss": round(loss.item(), 3),
    }
    return model.eval().requires_grad_(requires_grad=False), about


@torch.inference_mode()
def denoised(
    model: DiffusionModel, holes: list[list[int]], mask_id: int, num_tokens: int, num_remasked: int
) -> tuple[list[int], list[int]]:
    """Returns how many tokens of each hole are right, and how many steps it took."""
    sampler = Sampler(
        num_steps=MOST_STEPS,
        schedule=TemperatureSchedule(t_min=0.0, t_max=1.0),
        acceptance=SurestFirst(num_tokens=num_tokens, num_remasked=num_remasked),
        noise=AbsorbingMask(mask_id=mask_id),
        stop=NothingMasked(),
    )
    right, steps = list[int](), list[int]()
    for number, ids in enumerate(holes):
        cache = PromptCache(model.config, capacity=2 * PREFIX, dtype=model.dtype, device=CPU)
        model.prefill(torch.tensor([ids[:PREFIX]]), cache)
        row = canvas.Row(num_free=MIDDLE, head_ids=tuple(ids[PREFIX + MIDDLE :]), seed=number)
        layout = canvas.start([row], sampler.noise, CPU)
        executor = EagerExecutor(model, cache, layout, sampler, suppressed_ids=torch.tensor([mask_id]))
        cancel = Cancel(deadline_s=1e9, clock=lambda: 0.0)
        done = finished(denoise(Denoiser(executor, sampler), cancel=cancel, on_step=lambda _denoiser: None))
        truth = ids[PREFIX : PREFIX + MIDDLE]
        right.append(sum(one == other for one, other in zip(done.guesses[0].ids, truth, strict=True)))
        steps.append(done.steps)
    return right, steps


def _pieces(tokenizer: Tokenizer, files: list[Path], random_: random.Random) -> list[int]:
    """Returns prefix, middle and head from a place in one of the files."""
    size = PREFIX + MIDDLE + HEAD
    while True:
        text = random_.choice(files).read_text(encoding="utf-8", errors="replace")
        start = random_.randrange(max(1, len(text) - 8 * size))
        ids = tokenizer.encode(text[start : start + 8 * size])
        if len(ids) >= size:
            return ids[:size]


def _figures(num_tokens: int, num_remasked: int, right: list[int], steps: list[int]) -> dict[str, Any]:
    fewest = math.ceil(MIDDLE / num_tokens) + 1
    return {
        "num_tokens": num_tokens,
        "num_remasked": num_remasked,
        "right_tokens": round(sum(right) / len(right) / MIDDLE, 4),
        "exact": round(sum(one == MIDDLE for one in right) / len(right), 4),
        "steps": round(sum(steps) / len(steps), 2),
        "holes_masked_again": round(sum(one > fewest for one in steps) / len(steps), 4),
    }


def _gain(without: list[int], with_: list[int]) -> dict[str, float]:
    """Returns the difference of the shares of right tokens, and its 95 % bootstrap interval."""
    differences = [(b - a) / MIDDLE for a, b in zip(without, with_, strict=True)]
    random_ = random.Random(3)
    means = [sum(random_.choices(differences, k=len(differences))) / len(differences) for _ in range(2_000)]
    return {
        "right_tokens": round(sum(differences) / len(differences), 4),
        "low": round(record.quantile(means, 0.025), 4),
        "high": round(record.quantile(means, 0.975), 4),
    }


if __name__ == "__main__":
    main()
