"""A warm completion by the engine against `transformers`' generate: same checkpoint, prompt, canvas and step count.

Both run in this process, one after the other in turn, and medians are compared. The stop rule is set to never fire, so
that both make every step; `transformers` gets a canvas as long as ours.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import record
import torch
from dgemma_engine.cancel import Cancel
from dgemma_engine.engine import Engine
from dgemma_engine.location import EMBEDDED
from dgemma_engine.messages import Context
from dgemma_engine.model_folder import model_folder
from dgemma_engine.policies import StableAndConfident

NUM_STEPS = 8
NEVER = 1e-12


def hole() -> Context:
    """A line's end in a real file: this one."""
    text = Path(__file__).read_text(encoding="utf-8")
    cursor = text.index("statistics.median(") + len("statistics.median(")
    return Context(document="bench", prefix=text[:cursor], suffix=text[cursor:], path="warm.py", deadline_ms=600_000)


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=record.HERE / "results")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--model", type=Path, default=model_folder(EMBEDDED))
    args = parser.parse_args()
    torch.set_num_threads(2)
    engine = Engine.load(args.model, device="cpu", report=lambda _percent, _message: None)
    ours, seen = our_run(engine)
    theirs = their_run(args.model, seen)
    times: dict[str, list[float]] = {"ours_ms": [], "transformers_ms": []}
    for _ in range(args.rounds):
        for name, run in (("ours_ms", ours), ("transformers_ms", theirs)):
            started = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - started) * 1e3)
    medians = {name: round(statistics.median(values), 2) for name, values in times.items()}
    result = {
        "model": engine.model_name,
        "prompt_tokens": seen["prompt_tokens"],
        "canvas": seen["canvas"],
        "steps": NUM_STEPS,
        "rounds": args.rounds,
        **medians,
        "ratio_to_transformers": round(medians["transformers_ms"] / medians["ours_ms"], 2),
    }
    record.write("warm", result, args.out)


def our_run(engine: Engine) -> tuple[Callable[[], None], dict[str, Any]]:
    """Returns a call that fills the hole with exactly `NUM_STEPS` steps, and what it ran on."""
    engine._sampler = replace(  # pyright: ignore[reportPrivateUsage]
        engine._sampler,  # pyright: ignore[reportPrivateUsage]
        num_steps=NUM_STEPS,
        stop=StableAndConfident(stability=1, confidence=NEVER),
    )
    context = replace(hole(), max_middle_tokens=16)
    parts = engine._tokenize(context)  # pyright: ignore[reportPrivateUsage]
    size = engine._slot_size(16, len(parts.head_ids))  # pyright: ignore[reportPrivateUsage]

    def run() -> None:
        infill = engine.infill(context, Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic))
        assert infill.steps == NUM_STEPS, infill.steps

    seen = {
        "prompt_tokens": len(parts.prompt_ids),
        "prompt_ids": parts.prompt_ids,
        "canvas": size + len(parts.head_ids),
    }
    return run, seen


def their_run(folder: Path, seen: dict[str, Any]) -> Callable[[], None]:
    """Returns a call of `generate` on the same prompt and canvas length."""
    from transformers.models.diffusion_gemma import DiffusionGemmaForBlockDiffusion
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = DiffusionGemmaForBlockDiffusion.from_pretrained(folder, dtype=torch.float32).eval()
    model.config.canvas_length = seen["canvas"]
    prompt = torch.tensor([seen["prompt_ids"]])
    outside = model.config.text_config.vocab_size

    def run() -> None:
        model.generate(
            input_ids=prompt,
            max_new_tokens=seen["canvas"],
            max_denoising_steps=NUM_STEPS,
            t_min=0.4,
            t_max=0.8,
            stability_threshold=1,
            confidence_threshold=NEVER,
            sampler_config=EntropyBoundSamplerConfig(entropy_bound=0.1),
            eos_token_id=outside,
            pad_token_id=outside + 1,
        )

    return run


if __name__ == "__main__":
    main()
