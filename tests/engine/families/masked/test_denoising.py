"""The denoising loop of masked diffusion against a plain loop over `transformers`, token for token."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from dgemma_engine.diffusion import canvas
from dgemma_engine.diffusion.denoiser import Denoised, Denoiser, denoise
from dgemma_engine.diffusion.eager_executor import EagerExecutor
from dgemma_engine.diffusion.sampler import Sampler
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.masked.block_model import BlockModel
from dgemma_engine.families.masked.model import MaskedModel
from dgemma_engine.families.masked.weights import load_masked
from dgemma_engine.families.registry import family_of
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel

from tests.masked_checkpoints import BLOCK_KINDS, MASK, VOCAB_SIZE, MaskedCheckpoint, edit, make_masked

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
PROMPT, HEAD, BANNED = [66, 67, 68, 69, 70], (40, 41, 42), [3, 4]
# What the authors of each kind order positions by when they commit tokens.
ORDERS = {"open-dcoder": "entropy", "dream": "entropy", "a2d-qwen3": "probability", "llada": "probability"}


@pytest.fixture(scope="module", params=ORDERS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(kind: str, tmp_path_factory: pytest.TempPathFactory) -> MaskedCheckpoint:
    return make_masked(tmp_path_factory.mktemp("masked"), kind, spread=0.15)


def parts(folder: Path, prompt: list[int] = PROMPT) -> tuple[MaskedModel | BlockModel, PromptCache, Sampler]:
    facts = read_facts(folder)
    model = load_masked(facts, Ops.reference(), device=CPU, dtype=torch.float32)
    cache = PromptCache(model.config, capacity=8, dtype=torch.float32, device=CPU)
    model.prefill(torch.tensor([prompt]), cache)
    return model, cache, family_of(facts).read_sampler(facts, VOCAB_SIZE)


def by_the_loop(folder: Path, rows: list[canvas.Row], num_steps: int, prompt: list[int] = PROMPT) -> Denoised:
    model, cache, sampler = parts(folder, prompt)
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


@torch.inference_mode()
def block_by_block(
    checkpoint: MaskedCheckpoint, prompt: list[int], num_free: int, num_steps: int, end: int
) -> tuple[list[int], int]:
    """Returns the tokens up to the first end, and the steps: the surest masks of the first block with any, for good."""
    tokens, size = [MASK] * num_free, checkpoint.block_tokens
    for step in range(num_steps):
        logits = checkpoint.logits([*prompt, *tokens])[len(prompt) :]
        logits[:, [*BANNED, MASK]] = -torch.inf
        probs = logits.softmax(-1)
        masked = [place for place in range(num_free) if tokens[place] == MASK]
        share = -(-len(masked) // (num_steps - step))
        block = (len(prompt) + masked[0]) // size
        masked = [place for place in masked if (len(prompt) + place) // size == block]
        masked.sort(key=lambda place: -float(probs[place].max()))
        for place in masked[:share]:
            tokens[place] = int(probs[place].argmax())
        text = tokens[: tokens.index(end) + 1] if end in tokens else tokens
        if MASK not in text:
            return text, step + 1
    best = probs.argmax(-1).tolist()
    return [best[place] if token == MASK else token for place, token in enumerate(tokens)], num_steps


@pytest.mark.parametrize("kind_of_blocks", BLOCK_KINDS)
@pytest.mark.parametrize(("num_prompt", "num_free", "num_steps"), [(5, 10, 5), (30, 16, 16), (32, 40, 12), (3, 8, 1)])
def test_loop_over_blocks_gives_the_tokens_of_the_plain_one(
    tmp_path: Path, kind_of_blocks: str, num_prompt: int, num_free: int, num_steps: int
) -> None:
    checkpoint = make_masked(tmp_path, kind_of_blocks, spread=0.15)
    prompt = torch.randint(0, 256, (num_prompt,), generator=torch.Generator().manual_seed(2)).tolist()
    # A likely token is made the end token, so that rows end early.
    likely = by_the_loop(tmp_path, [canvas.Row(num_free=num_free)], num_steps, prompt).guesses[0].ids
    for end in (likely[-1], likely[num_free // 2], 257):
        edit(tmp_path, eos_token_id=end)
        tokens, steps = block_by_block(checkpoint, prompt, num_free, num_steps, end)
        done = by_the_loop(tmp_path, [canvas.Row(num_free=num_free)], num_steps, prompt)
        assert done.guesses[0].ids[: len(tokens)] == tokens
        assert done.steps == steps


@torch.inference_mode()
def growing(
    checkpoint: MaskedCheckpoint, num_free: int, num_steps: int, *, expand: int, delete: int, most: int
) -> tuple[list[int], list[int]]:
    """Returns the text, and the free positions after each step: DreamOn's `eval/generator.py`, without its draws."""
    tokens, lengths = [MASK] * num_free, list[int]()
    for step in range(num_steps):
        masked = [place for place, token in enumerate(tokens) if token == MASK]
        if not masked:
            break
        logits = checkpoint.logits([*PROMPT, *tokens, *HEAD])[len(PROMPT) : len(PROMPT) + len(tokens)]
        logits[:, [*BANNED, MASK]] = -torch.inf
        if len(tokens) >= most or step == num_steps - 1:
            logits[:, expand] = -torch.inf
        probs = logits.softmax(-1)
        masked.sort(key=lambda place: float(torch.special.entr(probs[place]).sum()))
        for place in masked[: -(-len(masked) // (num_steps - step))]:
            tokens[place] = int(probs[place].argmax())
        if delete in tokens:
            first = tokens.index(delete)
            tokens = [delete if token == MASK and i > first else token for i, token in enumerate(tokens)]
        tokens, room = [token for token in tokens if token != delete], most - sum(token != delete for token in tokens)
        grown = list[int]()
        for token in tokens:
            if token == expand:
                grown += [MASK, MASK] if room > 0 else [MASK]
                room -= 1
            else:
                grown.append(token)
        tokens = grown
        lengths.append(len(tokens))
        if not tokens:
            break
    return tokens, lengths


@pytest.mark.parametrize(("num_free", "num_steps"), [(6, 64), (12, 64), (10, 6), (16, 8), (4, 1)])
def test_row_that_grows_and_shrinks_is_that_of_the_plain_loop(tmp_path: Path, num_free: int, num_steps: int) -> None:
    checkpoint, most = make_masked(tmp_path, "dreamon", spread=0.15), 64
    # The likeliest tokens of a random model, so that it both expands and deletes.
    likely = torch.tensor(by_the_loop(tmp_path, [canvas.Row(num_free=40, head_ids=HEAD)], 1).guesses[0].ids)
    values, counts = likely.unique(return_counts=True)
    favourites = values[counts.argsort(descending=True)].tolist()[:5]
    changes = set[int]()
    for expand, delete in [(favourites[i], favourites[j]) for i in range(5) for j in range(5) if i != j]:
        edit(tmp_path, expand_token_id=expand, eos_token_id=delete)
        tokens, lengths = growing(checkpoint, num_free, num_steps, expand=expand, delete=delete, most=most)
        done = by_the_loop(tmp_path, [canvas.Row(num_free=num_free, head_ids=HEAD)], num_steps)
        assert done.guesses[0].ids == tokens
        assert len(done.guesses[0].confidence) == len(tokens)
        changes |= {after - before for before, after in itertools.pairwise([num_free, *lengths])}
    assert num_steps == 1 or (min(changes) < 0 < max(changes)), changes


def test_rows_of_several_lengths_grow_by_themselves(tmp_path: Path) -> None:
    make_masked(tmp_path, "dreamon", spread=0.15)
    likely = by_the_loop(tmp_path, [canvas.Row(num_free=40, head_ids=HEAD)], 1).guesses[0].ids
    edit(tmp_path, expand_token_id=likely[0], eos_token_id=likely[-1])
    rows = [canvas.Row(num_free=num, head_ids=HEAD) for num in (3, 8, 5)]
    together = by_the_loop(tmp_path, rows, 12)
    for index, row in enumerate(rows):
        alone = by_the_loop(tmp_path, [row], 12).guesses[0]
        assert together.guesses[index].ids == alone.ids
        assert together.guesses[index].confidence == pytest.approx(alone.confidence, rel=1e-3)


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
