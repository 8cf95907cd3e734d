"""What several users gain whose canvases go through the model in one pass, on a processor.

One pass of all and one after another run in turn in one process; medians of processor time on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
import torch
from dgemma_engine.backends.select import load_runnable
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.model.canvas_pass import CanvasPass
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model_store.catalogue import TINY

PROMPT_TOKENS = 180


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--canvas", type=int, nargs="+", default=[16, 48, 100])
    parser.add_argument("--users", type=int, nargs="+", default=[2, 4, 8])
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load_runnable(
        model_folder(TINY), device=torch.device("cpu"), ops=None, prompt_tokens=PROMPT_TOKENS, report=lambda _: None
    )
    results = {
        str(canvas): {
            str(users): case(model, canvas, users, args.rounds)
            for users in args.users
            if canvas * users <= model.most_together
        }
        for canvas in args.canvas
    }
    settings = {"model": TINY, "prompt_tokens": PROMPT_TOKENS, "rounds": args.rounds, "clock": "processor time"}
    record.write("together", {**settings, "dtype": model.number_format, "results": results}, args.out)


@torch.inference_mode()
def case(model: DiffusionModel, canvas: int, num_users: int, rounds: int) -> dict[str, float]:
    """Returns milliseconds of one step of all users, in one pass and one after another."""
    generator = torch.Generator().manual_seed(0)
    passes = [one(model, canvas, number, generator) for number in range(num_users)]
    spent: dict[str, list[float]] = {"together": [], "in_turn": []}
    for _round in range(rounds + 3):
        spent["together"].append(seconds(lambda: model.decode_together(passes)))
        spent["in_turn"].append(seconds(lambda: [model.decode_together([each]) for each in passes]))
    together_ms, in_turn_ms = (1e3 * statistics.median(times[3:]) for times in spent.values())
    return {
        "together_ms": round(together_ms, 2),
        "in_turn_ms": round(in_turn_ms, 2),
        "times_turns": round(in_turn_ms / together_ms, 2),
    }


def one(model: DiffusionModel, canvas: int, number: int, generator: torch.Generator) -> CanvasPass:
    """Returns a user's canvas after a prompt, as at a step after the first."""
    cache = PromptCache(model.config, capacity=PROMPT_TOKENS + canvas, dtype=model.dtype, device=model.device)
    vocab_size = model.config.vocab_size
    model.prefill(torch.randint(0, vocab_size, (1, PROMPT_TOKENS - number), generator=generator), cache)
    probs = torch.rand(1, canvas, vocab_size, generator=generator)
    return CanvasPass(
        canvas_1L=torch.randint(0, vocab_size, (1, canvas), generator=generator),
        cache=cache,
        soft_1LD=model.soft_embeddings(probs / probs.sum(-1, keepdim=True)),
    )


def seconds(run: Callable[[], object]) -> float:
    """Returns the processor time of `run`."""
    started = time.process_time()
    run()
    return time.process_time() - started


if __name__ == "__main__":
    main()
