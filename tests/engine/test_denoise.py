"""The denoising loop against `transformers`' generate and against our own plain loop, token for token."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from dgemma_engine import canvas as canvases
from dgemma_engine.cache import PromptCache
from dgemma_engine.cancel import Cancel
from dgemma_engine.denoise import Denoised, denoise
from dgemma_engine.messages import Finish
from dgemma_engine.model import DiffusionGemma
from dgemma_engine.ops import Ops
from dgemma_engine.policies import (
    EntropyBound,
    Sampler,
    StableAndConfident,
    TemperatureSchedule,
    UniformNoise,
    sample,
)
from dgemma_engine.reference import denoise_plainly
from dgemma_engine.weights import load_model

CPU = torch.device("cpu")
SAMPLER = Sampler(
    num_steps=12,
    schedule=TemperatureSchedule(t_min=0.4, t_max=0.8),
    acceptance=EntropyBound(bound=2.0),
    noise=UniformNoise(vocab_size=320),
    stop=StableAndConfident(stability=1, confidence=0.5),
)
NOTHING_BANNED = torch.tensor([], dtype=torch.int64)


class Case:
    """A small model with a prompt in its cache."""

    def __init__(self, checkpoint: Any) -> None:
        self.reference = checkpoint.reference
        self.model: DiffusionGemma = load_model(checkpoint.folder, Ops.reference(), device=CPU, dtype=torch.float32)
        self.prompt = torch.randint(0, 320, (1, 21), generator=torch.Generator().manual_seed(1))
        self.cache = PromptCache(self.model.config, capacity=8, dtype=torch.float32, device=CPU)
        with torch.no_grad():
            self.model.encode(self.prompt, self.cache)

    def run(
        self,
        slot_size: int,
        head_ids: list[int],
        *,
        sampler: Sampler = SAMPLER,
        banned_ids: torch.Tensor = NOTHING_BANNED,
        generator: torch.Generator,
        cancel: Cancel | None = None,
        on_step: Callable[[], None] = lambda: None,
    ) -> Denoised:
        canvas = canvases.build(slot_size, head_ids, sampler.noise, generator)
        return denoise(
            self.model,
            self.cache,
            canvas,
            sampler,
            banned_ids=banned_ids,
            generator=generator,
            cancel=cancel or Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic),
            on_step=on_step,
        )


@pytest.fixture(scope="module")
def case(make_checkpoint: Callable[..., Any]) -> Case:
    # Calm layers, so that a rounding error of one step does not decide the next; sharp predictions, so that runs end
    # at different steps instead of always at the limit.
    checkpoint = make_checkpoint(seed=3, spread=0.1)
    with torch.no_grad():
        checkpoint.reference.model.decoder.embed_tokens.weight.mul_(3)
        checkpoint.reference.model.decoder.norm.weight.mul_(4)
    checkpoint.reference.save_pretrained(checkpoint.folder)
    return Case(checkpoint)


def generate(case: Case, seed: int, sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], int]:
    """One block by `transformers`; returns its tokens and its denoising steps.

    It draws tokens with `torch.multinomial`, which is given our draws instead: everything else is its own.
    """

    def draw(probs: torch.Tensor, num_samples: int) -> torch.Tensor:
        assert num_samples == 1
        return sample(probs[None], torch.default_generator)[0, :, None]

    monkeypatch.setattr(torch, "multinomial", draw)
    torch.manual_seed(seed)
    out = case.reference.generate(
        input_ids=case.prompt,
        max_new_tokens=16,
        max_denoising_steps=sampler.num_steps,
        t_min=sampler.schedule.t_min,
        t_max=sampler.schedule.t_max,
        stability_threshold=sampler.stop.stability,
        confidence_threshold=sampler.stop.confidence,
        sampler_config=_entropy_bound(sampler.acceptance.bound),
        # Ids that cannot occur: padding after an end token would hide what the canvas held.
        eos_token_id=400,
        pad_token_id=401,
    )
    return out.sequences[0, -16:].tolist(), round(16 / float(out.tokens_per_forward))


def _entropy_bound(bound: float) -> Any:
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig

    return EntropyBoundSamplerConfig(entropy_bound=bound)


@pytest.mark.parametrize("stability", [0, 1, 2])
@pytest.mark.parametrize("seed", range(8))
def test_same_draws_give_the_tokens_and_steps_of_generate(
    case: Case, seed: int, stability: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = replace(SAMPLER, stop=StableAndConfident(stability=stability, confidence=0.5))
    expected_ids, expected_steps = generate(case, seed, sampler, monkeypatch)
    ours = case.run(16, [], sampler=sampler, generator=torch.default_generator.manual_seed(seed))
    assert ours.best_BL is not None
    assert ours.best_BL[0].tolist() == expected_ids
    assert ours.steps == expected_steps


def test_step_counts_of_those_runs_differ(case: Case) -> None:
    counts = {case.run(16, [], generator=torch.Generator().manual_seed(seed)).steps for seed in range(8)}
    assert len(counts) > 1, "if every run took the same number of steps, comparing them would prove nothing"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("slot_size", "head"), [(1, 0), (5, 3), (16, 9), (12, 0)])
def test_clamped_canvas_equals_plain_loop(case: Case, seed: int, slot_size: int, head: int) -> None:
    head_ids = list(range(30, 30 + head))
    banned = [*range(9), 100, 101]
    ours = case.run(slot_size, head_ids, banned_ids=torch.tensor(banned), generator=torch.Generator().manual_seed(seed))
    plain = denoise_plainly(
        case.model,
        case.cache,
        slot_size,
        head_ids,
        SAMPLER,
        banned_ids=banned,
        generator=torch.Generator().manual_seed(seed),
    )
    assert ours.best_BL is not None
    assert ours.best_BL[0, :slot_size].tolist() == plain.ids[:slot_size]
    assert ours.steps == plain.steps
    assert not set(plain.ids[:slot_size]) & set(banned)


def test_same_seed_same_answer_other_seed_other_answer(case: Case) -> None:
    first, again, other = (case.run(16, [], generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.best_BL is not None and again.best_BL is not None and other.best_BL is not None
    assert torch.equal(first.best_BL, again.best_BL)
    assert not torch.equal(first.best_BL, other.best_BL)


def test_clamps_are_rewritten_after_every_step(case: Case) -> None:
    seen: list[list[int]] = []
    generator = torch.Generator().manual_seed(4)
    canvas = canvases.build(6, [31, 32, 33], SAMPLER.noise, generator)
    denoise(
        case.model,
        case.cache,
        canvas,
        SAMPLER,
        banned_ids=NOTHING_BANNED,
        generator=generator,
        cancel=Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic),
        on_step=lambda: seen.append(canvas.ids_BL[0].tolist()),
    )
    assert len(seen) > 1
    assert all(ids[6:] == [31, 32, 33] for ids in seen)


def test_cancel_takes_effect_before_the_next_step(case: Case) -> None:
    cancel = Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic)
    done = case.run(16, [], generator=torch.Generator().manual_seed(0), cancel=cancel, on_step=cancel.set)
    assert (done.finish, done.steps) == (Finish.CANCELLED, 1)


def test_deadline_keeps_the_best_guess_so_far(case: Case) -> None:
    ticks = iter(range(100))
    cancel = Cancel(deadline_s=2.5, clock=lambda: float(next(ticks)))
    done = case.run(16, [], generator=torch.Generator().manual_seed(0), cancel=cancel)
    assert (done.finish, done.steps) == (Finish.DEADLINE, 3)
    assert done.best_BL is not None and done.best_BL.shape == (1, 16)


def test_deadline_before_the_first_step_has_no_guess(case: Case) -> None:
    done = case.run(
        16, [], generator=torch.Generator().manual_seed(0), cancel=Cancel(deadline_s=0.0, clock=time.monotonic)
    )
    assert (done.finish, done.steps, done.best_BL) == (Finish.DEADLINE, 0, None)
