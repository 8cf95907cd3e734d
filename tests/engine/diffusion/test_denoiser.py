"""The denoising loop against `transformers`' generate and against our own plain loop, token for token."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint.loader import load_model
from dgemma_engine.diffusion import canvas as canvases
from dgemma_engine.diffusion.canvas import Row
from dgemma_engine.diffusion.denoiser import Denoised, Denoiser, Guess, denoise
from dgemma_engine.diffusion.eager_executor import EagerExecutor
from dgemma_engine.diffusion.reference_loop import denoise_plainly
from dgemma_engine.diffusion.sampler import (
    ClampedConditioning,
    EntropyBound,
    Sampler,
    StableAndConfident,
    TemperatureSchedule,
    UniformNoise,
)
from dgemma_engine.diffusion.token_distribution import sample
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.protocol.messages import Finish
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
SAMPLER = Sampler(
    num_steps=12,
    schedule=TemperatureSchedule(t_min=0.4, t_max=0.8),
    acceptance=EntropyBound(bound=2.0),
    noise=UniformNoise(vocab_size=320),
    stop=StableAndConfident(num_earlier=1, confidence=0.5),
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

    def denoising(
        self,
        *rows: Row,
        sampler: Sampler = SAMPLER,
        banned_ids: torch.Tensor = NOTHING_BANNED,
        generators: list[torch.Generator] | None = None,
    ) -> Denoiser:
        canvas = canvases.start(rows, sampler.noise, CPU, generators)
        executor = EagerExecutor(self.model, self.cache, canvas, sampler, suppressed_ids=banned_ids)
        return Denoiser(executor, sampler)

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
        row = Row(num_free=slot_size, head_ids=tuple(head_ids))
        return finished(
            denoise(
                self.denoising(row, sampler=sampler, banned_ids=banned_ids, generators=[generator]),
                cancel=cancel or unhurried(),
                on_step=lambda _denoising: on_step(),
            )
        )


def unhurried() -> Cancel:
    return Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic)


@pytest.fixture(scope="module")
def case(make_checkpoint: Callable[..., Any]) -> Case:
    # Small weights, so that a rounding error of one step does not decide the next; sharp predictions, so that runs end
    # at different steps instead of always at the limit.
    checkpoint = make_checkpoint(seed=3, spread=0.1)
    with torch.no_grad():
        checkpoint.reference.model.decoder.embed_tokens.weight.mul_(3)
        checkpoint.reference.model.decoder.norm.weight.mul_(4)
    checkpoint.reference.save_pretrained(checkpoint.folder)
    return Case(checkpoint)


def generate(case: Case, seed: int, sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], int]:
    """One block by `transformers`; returns its tokens and its denoising steps.

    `transformers` draws tokens with `torch.multinomial`, which is replaced by our draws; nothing else is replaced.
    """

    def draw(probs: torch.Tensor, num_samples: int) -> torch.Tensor:
        assert num_samples == 1
        levels = torch.rand(probs.shape[0], generator=torch.default_generator)
        return sample(probs, levels[:, None])[:, None]

    monkeypatch.setattr(torch, "multinomial", draw)
    torch.manual_seed(seed)
    out = case.reference.generate(
        input_ids=case.prompt,
        max_new_tokens=16,
        max_denoising_steps=sampler.num_steps,
        t_min=sampler.schedule.t_min,
        t_max=sampler.schedule.t_max,
        stability_threshold=sampler.stop.num_earlier,
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
    sampler = replace(SAMPLER, stop=StableAndConfident(num_earlier=stability, confidence=0.5))
    expected_ids, expected_steps = generate(case, seed, sampler, monkeypatch)
    ours = case.run(16, [], sampler=sampler, generator=torch.default_generator.manual_seed(seed))
    assert ours.guesses[0].ids == expected_ids
    assert ours.steps == expected_steps


def test_step_counts_differ_between_seeds(case: Case) -> None:
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
    assert ours.guesses[0].ids == plain.ids[:slot_size]
    assert ours.steps == plain.steps
    assert not set(plain.ids[:slot_size]) & set(banned)


def test_same_seed_same_answer_other_seed_other_answer(case: Case) -> None:
    first, again, other = (case.run(16, [], generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.guesses[0] == again.guesses[0]
    assert first.guesses[0].ids != other.guesses[0].ids


def test_clamps_are_rewritten_after_every_step(case: Case) -> None:
    denoising = case.denoising(Row(num_free=6, opening_ids=(30,), head_ids=(31, 32, 33), seed=4))
    seen: list[list[int]] = []
    finished(
        denoise(
            denoising,
            cancel=unhurried(),
            on_step=lambda denoising: seen.append(denoising._executor.tokens()[0].tolist()),  # type: ignore[reportPrivateUsage]
        )
    )
    assert len(seen) > 1
    assert all((ids[0], ids[7:]) == (30, [31, 32, 33]) for ids in seen)


def test_cancel_takes_effect_before_the_next_step(case: Case) -> None:
    cancel = Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic)
    done = case.run(16, [], generator=torch.Generator().manual_seed(0), cancel=cancel, on_step=cancel.set)
    assert (done.finish, done.steps) == (Finish.CANCELLED, 1)


def test_deadline_keeps_the_best_guess_so_far(case: Case) -> None:
    ticks = iter(range(100))
    cancel = Cancel(deadline_s=2.5, clock=lambda: float(next(ticks)))
    done = case.run(16, [], generator=torch.Generator().manual_seed(0), cancel=cancel)
    assert (done.finish, done.steps) == (Finish.DEADLINE, 3)
    assert len(done.guesses[0].ids) == len(done.guesses[0].confidence) == 16


def test_deadline_before_the_first_step_has_no_guess(case: Case) -> None:
    done = case.run(
        16, [], generator=torch.Generator().manual_seed(0), cancel=Cancel(deadline_s=0.0, clock=time.monotonic)
    )
    assert (done.finish, done.steps, done.guesses) == (Finish.DEADLINE, 0, {})


ROWS = (
    Row(num_free=3, head_ids=(31, 32), seed=1),
    Row(num_free=12, head_ids=(31, 32), seed=2),
    Row(num_free=7, opening_ids=(40,), head_ids=(31,), seed=3),
    Row(num_free=1, seed=4),
    Row(num_free=9, head_ids=(31, 32), warm_ids=(50, 51, 52), seed=5),
)


def guesses(case: Case, *rows: Row, rule: ClampedConditioning) -> dict[int, Guess]:
    sampler = replace(SAMPLER, clamped_conditioning=rule)
    return finished(denoise(case.denoising(*rows, sampler=sampler), cancel=unhurried(), on_step=lambda _: None)).guesses


@pytest.mark.parametrize("rule", list(ClampedConditioning))
def test_packed_rows_end_as_they_would_alone(case: Case, rule: ClampedConditioning) -> None:
    together = guesses(case, *ROWS, rule=rule)
    alone = [guesses(case, row, rule=rule)[0] for row in ROWS]
    assert len({guess.steps for guess in alone}) > 1, "rows that all leave at once would prove little"
    for index, guess in enumerate(alone):
        assert (together[index].ids, together[index].steps) == (guess.ids, guess.steps)
        # Several steps add up rounding; one pass is compared more closely in test_attention_masks.py.
        assert together[index].confidence == pytest.approx(guess.confidence, rel=5e-3)
        assert together[index].entropy == pytest.approx(guess.entropy, rel=5e-3, abs=1e-4)


def test_rows_that_were_not_chosen_make_one_step(case: Case) -> None:
    done = finished(denoise(case.denoising(*ROWS), cancel=unhurried(), on_step=lambda _: None, choose=lambda _: [1, 2]))
    alone = guesses(case, ROWS[1], rule=ClampedConditioning.OWN)[0]
    assert [done.guesses[index].steps for index in (0, 3, 4)] == [1, 1, 1]
    assert done.guesses[1].ids == alone.ids
    assert done.steps == max(guess.steps for guess in done.guesses.values())


def test_limited_positions_hold_only_what_they_may(case: Case) -> None:
    row = Row(num_free=5, head_ids=(31,), first_ids=(60, 61), last_ids=(70, 71, 72))
    for seed in range(4):
        ids = guesses(case, replace(row, seed=seed), Row(num_free=4, seed=seed), rule=ClampedConditioning.NOTHING)[
            0
        ].ids
        assert ids[0] in {60, 61} and ids[-1] in {70, 71, 72}


def test_guess_of_a_row_can_be_read_after_others_left(case: Case) -> None:
    ticks = iter(range(100))
    cancel = Cancel(deadline_s=1.5, clock=lambda: float(next(ticks)))
    done = finished(denoise(case.denoising(*ROWS), cancel=cancel, on_step=lambda _: None, choose=lambda _: [0]))
    assert (done.finish, done.steps, sorted(done.guesses)) == (Finish.DEADLINE, 2, [0, 1, 2, 3, 4])


def test_fewer_steps_spread_the_whole_schedule(case: Case) -> None:
    seen: list[float] = []
    sampler = replace(SAMPLER, num_steps=3, stop=StableAndConfident(num_earlier=9, confidence=0.1))
    denoising = case.denoising(Row(num_free=4), sampler=sampler)
    finished(
        denoise(
            denoising,
            cancel=unhurried(),
            on_step=lambda denoising: seen.append(denoising._temperature),  # type: ignore[reportPrivateUsage]
        )
    )
    assert seen == pytest.approx([0.8, 0.4 + 0.4 * 2 / 3, 0.4 + 0.4 / 3])


def test_cancellation_in_the_middle_of_a_step_ends_it_and_is_no_step(case: Case) -> None:
    cancel, told = unhurried(), list[int]()
    work = denoise(case.denoising(*ROWS), cancel=cancel, on_step=lambda denoising: told.append(denoising.steps))
    for _ in range(4):  # Before the first step, in its middle, and likewise for the second.
        next(work)
    cancel.set()
    done = finished(work)
    assert (done.finish, done.steps, told) == (Finish.CANCELLED, 1, [1])
    assert sorted(done.guesses) == [0, 1, 2, 3, 4]


def test_last_step_computes_logits_of_free_positions_only(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = list[int]()
    raw_logits = case.model.raw_logits

    def watched(hidden_ND: torch.Tensor) -> torch.Tensor:
        looked_at.append(len(hidden_ND))
        return raw_logits(hidden_ND)

    monkeypatch.setattr(case.model, "raw_logits", watched)
    never = StableAndConfident(num_earlier=100, confidence=0.1)
    run = case.denoising(Row(num_free=3, head_ids=(5, 6)), sampler=replace(SAMPLER, num_steps=3, stop=never))
    finished(denoise(run, cancel=unhurried(), on_step=lambda _denoising: None))
    assert looked_at == [5, 5, 3]
