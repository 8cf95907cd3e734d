"""The denoising loop of masked diffusion against a plain loop over `transformers`, token for token."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dgemma_engine.diffusion import canvas
from dgemma_engine.diffusion.denoiser import Denoised, Denoiser, denoise
from dgemma_engine.diffusion.eager_executor import EagerExecutor
from dgemma_engine.diffusion.sampler import Sampler
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.masked.model import MaskedModel
from dgemma_engine.families.masked.weights import load_masked
from dgemma_engine.families.registry import family_of
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.scheduling.cancellation import Cancel
from dgemma_engine.scheduling.cooperative import finished

from tests.masked_checkpoints import MASK, VOCAB_SIZE, MaskedCheckpoint, make_masked

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
PROMPT, HEAD, BANNED = [66, 67, 68, 69, 70], (40, 41, 42), [3, 4]
# How each kind's authors choose what to commit.
ORDERS = {"open-dcoder": "entropy", "dream": "entropy", "a2d-qwen3": "probability", "llada": "probability"}


@pytest.fixture(scope="module", params=ORDERS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(kind: str, tmp_path_factory: pytest.TempPathFactory) -> MaskedCheckpoint:
    return make_masked(tmp_path_factory.mktemp("masked"), kind, spread=0.15)


def parts(folder: Path) -> tuple[MaskedModel, PromptCache, Sampler]:
    facts = read_facts(folder)
    model = load_masked(facts, Ops.reference(), device=CPU, dtype=torch.float32)
    cache = PromptCache(model.config, capacity=8, dtype=torch.float32, device=CPU)
    model.prefill(torch.tensor([PROMPT]), cache)
    return model, cache, family_of(facts).read_sampler(facts, VOCAB_SIZE)


def by_the_loop(folder: Path, rows: list[canvas.Row], num_steps: int) -> Denoised:
    model, cache, sampler = parts(folder)
    executor = EagerExecutor(
        model, cache, canvas.start(rows, sampler.noise, CPU), sampler, suppressed_ids=torch.tensor(BANNED)
    )
    denoiser = Denoiser(executor, sampler, num_steps=num_steps)
    cancel = Cancel(deadline_s=1e9, clock=lambda: 0.0)
    return finished(denoise(denoiser, cancel=cancel, on_step=lambda _denoiser: None))


@torch.inference_mode()
def plainly(checkpoint: MaskedCheckpoint, order: str, num_free: int, num_steps: int) -> tuple[list[int], list[float]]:
    """Returns the tokens and the probability that each was committed with: the surest masks first, for good."""
    tokens, probabilities = [MASK] * num_free, [0.0] * num_free
    for step in range(num_steps):
        logits = checkpoint.logits([*PROMPT, *tokens, *HEAD])[len(PROMPT) : len(PROMPT) + num_free]
        logits[:, [*BANNED, MASK]] = -torch.inf
        probs = logits.softmax(-1)
        masked = [place for place in range(num_free) if tokens[place] == MASK]
        entropy = [float(torch.special.entr(row).sum()) for row in probs]
        highest = [float(row.max()) for row in probs]
        masked.sort(key=lambda place: entropy[place] if order == "entropy" else -highest[place])
        # LLaDA's `get_num_transfer_tokens`: equal shares, the rest to the first steps.
        share, rest = divmod(num_free, num_steps)
        for place in masked[: share + (step < rest)]:
            tokens[place], probabilities[place] = int(probs[place].argmax()), highest[place]
    return tokens, probabilities


@pytest.mark.parametrize(("num_free", "num_steps"), [(10, 4), (7, 7), (8, 1), (5, 3)])
def test_loop_gives_the_tokens_of_the_plain_one(
    checkpoint: MaskedCheckpoint, kind: str, num_free: int, num_steps: int
) -> None:
    done = by_the_loop(checkpoint.folder, [canvas.Row(num_free=num_free, head_ids=HEAD)], num_steps)
    tokens, probabilities = plainly(checkpoint, ORDERS[kind], num_free, num_steps)
    assert done.guesses[0].ids == tokens
    assert done.guesses[0].confidence == pytest.approx(probabilities, rel=1e-3)
    assert done.steps == num_steps


def test_row_is_the_same_beside_others_that_leave(checkpoint: MaskedCheckpoint) -> None:
    rows = [canvas.Row(num_free=num, head_ids=HEAD) for num in (3, 8, 5)]
    model, cache, sampler = parts(checkpoint.folder)
    executor = EagerExecutor(
        model, cache, canvas.start(rows, sampler.noise, CPU), sampler, suppressed_ids=torch.tensor(BANNED)
    )
    denoiser = Denoiser(executor, sampler, num_steps=4)
    cancel = Cancel(deadline_s=1e9, clock=lambda: 0.0)
    chosen = denoise(denoiser, cancel=cancel, on_step=lambda _denoiser: None, choose=lambda _denoiser: [1])
    done = finished(chosen)
    alone = by_the_loop(checkpoint.folder, rows[1:2], 4).guesses[0]
    assert done.guesses[1].ids == alone.ids
    assert done.guesses[1].confidence == pytest.approx(alone.confidence, rel=1e-3)
