"""The denoising loop over masks of a Llama against a plain loop, token for token; one prompt cache for both modes."""

from __future__ import annotations

import math

import pytest
import torch
from dgemma_engine.diffusion import canvas
from dgemma_engine.diffusion.absorbing_mask import AbsorbingMask, NothingMasked, SurestFirst
from dgemma_engine.diffusion.denoiser import Denoiser, denoise
from dgemma_engine.diffusion.eager_executor import EagerExecutor
from dgemma_engine.diffusion.sampler import Sampler, TemperatureSchedule
from dgemma_engine.families.llama.model import LlamaModel
from dgemma_engine.families.llama.weights import load_llama
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel
from torch import Tensor

from tests.llama_checkpoints import make_llama

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
MASK, BANNED, HEAD = 15, [3, 4], (40, 41, 42)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LlamaModel:
    path = make_llama(tmp_path_factory.mktemp("llama"), spread=0.15).gguf
    return load_llama(path, Ops.reference(), device=CPU, dtype=torch.float32)


@torch.inference_mode()
def encoded(model: LlamaModel) -> PromptCache:
    cache = PromptCache(model.config, capacity=64, dtype=torch.float32, device=CPU)
    model.prefill(torch.randint(20, 288, (1, 17), generator=torch.Generator().manual_seed(1)), cache)
    return cache


def sampler(num_tokens: int, num_remasked: int, num_steps: int) -> Sampler:
    return Sampler(
        num_steps=num_steps,
        schedule=TemperatureSchedule(t_min=0.2, t_max=0.9),
        acceptance=SurestFirst(num_tokens=num_tokens, num_remasked=num_remasked, remask_entropy=1.0),
        noise=AbsorbingMask(mask_id=MASK),
        stop=NothingMasked(),
    )


def by_the_loop(model: LlamaModel, cache: PromptCache, slot: int, chosen: Sampler, seed: int) -> tuple[list[int], int]:
    drawn = canvas.start([canvas.Row(num_free=slot, head_ids=HEAD, seed=seed)], chosen.noise, CPU)
    executor = EagerExecutor(model, cache, drawn, chosen, suppressed_ids=torch.tensor(BANNED))
    cancel = Cancel(deadline_s=1e9, clock=lambda: 0.0)
    done = finished(denoise(Denoiser(executor, chosen), cancel=cancel, on_step=lambda _denoiser: None))
    return done.guesses[0].ids, done.steps


@torch.inference_mode()
def plainly(model: LlamaModel, cache: PromptCache, slot: int, chosen: Sampler, seed: int) -> tuple[list[int], int]:
    """The same, written out with lists: commit the surest masks, mask the least sure commitments again."""
    acceptance = chosen.acceptance
    assert isinstance(acceptance, SurestFirst)
    generator = torch.Generator().manual_seed(seed)
    slots, best = [MASK] * slot, list[int]()
    for step in range(1, chosen.num_steps + 1):
        logits = model.logits(model.decode(torch.tensor([[*slots, *HEAD]]), cache))[0, :slot]
        logits[:, [*BANNED, MASK]] = -1e9
        share = (chosen.num_steps - step + 1) / chosen.num_steps
        probs = (logits / (0.2 + 0.7 * share)).softmax(-1)
        best = [int(row.argmax()) if token == MASK else token for row, token in zip(probs, slots, strict=True)]
        if MASK not in slots:
            return best, step
        levels = torch.rand(slot + len(HEAD), generator=generator).tolist()
        entropy = [-sum(p * math.log(p) for p in row.tolist() if p > 0) for row in probs]
        masked = sorted((place for place in range(slot) if slots[place] == MASK), key=lambda place: entropy[place])
        unsure = [place for place in range(slot) if slots[place] != MASK and entropy[place] > acceptance.remask_entropy]
        unsure = sorted(unsure, key=lambda place: -entropy[place])[: acceptance.num_remasked]
        for place in masked[: acceptance.num_tokens]:
            slots[place] = drawn(probs[place], levels[place])
        for place in unsure:
            slots[place] = MASK
    return best, chosen.num_steps


def drawn(probs: Tensor, level: float) -> int:
    return int((probs.cumsum(-1) <= level * probs.sum()).sum())


@pytest.mark.parametrize(("num_tokens", "num_remasked", "num_steps"), [(1, 0, 12), (3, 0, 8), (4, 1, 12), (2, 1, 4)])
def test_loop_gives_the_tokens_of_the_plain_one(
    model: LlamaModel, num_tokens: int, num_remasked: int, num_steps: int
) -> None:
    cache, chosen = encoded(model), sampler(num_tokens, num_remasked, num_steps)
    corrected = 0
    for seed in range(4):
        ids, steps = by_the_loop(model, cache, 8, chosen, seed)
        assert (ids, steps) == plainly(model, cache, 8, chosen, seed)
        corrected += steps > math.ceil(8 / num_tokens) + 1
    if num_remasked and num_steps > 8:
        assert corrected, "tokens that were masked again take further steps"


@torch.inference_mode()
def test_denoising_leaves_the_prompt_as_it_was(model: LlamaModel) -> None:
    cache, untouched = encoded(model), encoded(model)
    by_the_loop(model, cache, 8, sampler(4, 1, 12), 0)
    ids = torch.tensor([[70, 71]])
    torch.testing.assert_close(model.encode(ids, cache), model.encode(ids, untouched))


def test_a_row_is_the_same_beside_another(model: LlamaModel) -> None:
    cache, chosen = encoded(model), sampler(3, 1, 8)
    rows = [canvas.Row(num_free=5, head_ids=HEAD, seed=7), canvas.Row(num_free=8, head_ids=HEAD, seed=0)]
    executor = EagerExecutor(
        model, cache, canvas.start(rows, chosen.noise, CPU), chosen, suppressed_ids=torch.tensor(BANNED)
    )
    cancel = Cancel(deadline_s=1e9, clock=lambda: 0.0)
    together = finished(denoise(Denoiser(executor, chosen), cancel=cancel, on_step=lambda _denoiser: None))
    assert together.guesses[1].ids == by_the_loop(model, cache, 8, chosen, 0)[0]
