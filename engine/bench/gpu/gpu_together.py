"""Several users at once on a GPU: the canvas of each after a prompt of its own, all in one pass a step."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from dgemma_engine.diffusion.canvas import Row
from dgemma_engine.diffusion.pass_queue import PassQueue
from gpu_cases import INLINE_PASSES, NEVER, Bench, row


def users_at_once(num_users: int, bench: Bench) -> list[dict[str, Any]]:
    """Times the steps of several users' canvases, counting the tokens of all; one user alone replays whole steps."""
    sizes = bench.sizes
    prompts = [bench.prompt(sizes.prompt + number) for number in range(num_users)]
    num_steps = min(INLINE_PASSES, sizes.fixed_steps)

    @torch.inference_mode()
    def run() -> None:
        queue = PassQueue(bench.model) if num_users > 1 else None
        runs = [
            bench.denoising(cache, [Row(num_free=sizes.users_canvas, seed=seed)], num_steps, NEVER, queue=queue)
            for seed, cache in enumerate(prompts)
        ]
        for step in range(num_steps):
            for each in runs:
                if step:
                    each.advance(each.live)
                each.forward()
            for each in runs:
                each.score()

    whole_s = statistics.median([bench.seconds(run) for _round in range(sizes.rounds + 2)][2:])
    entry = row(
        f"users at once: {num_users}", bench.form, sizes, ms_per_step=round(whole_s * 1e3 / num_steps, 3),
        tokens_per_s=round(num_users * sizes.users_canvas / whole_s, 1), steps=num_steps, canvas=sizes.users_canvas,
        prompt_tokens=sizes.prompt,
    )  # fmt: skip
    return [entry]
