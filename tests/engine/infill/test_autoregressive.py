"""Writing left to right: a draft changes the number of passes, never the text."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint.loader import load_model
from dgemma_engine.infill.autoregressive import Forks, Written, write
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tokenization.token_healing import Opening
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
PROMPT = [2, *range(40, 61)]


@pytest.fixture(scope="module")
def model(make_checkpoint: Callable[..., Any]) -> DiffusionGemma:
    folder = make_checkpoint(seed=33, spread=0.2).folder
    return load_model(folder, Ops.reference(), device=CPU, dtype=torch.float32)


@pytest.fixture(scope="module")
def cache(model: DiffusionGemma) -> PromptCache:
    cache = PromptCache(model.config, capacity=8, dtype=torch.float32, device=CPU)
    with torch.no_grad():
        model.encode(torch.tensor([PROMPT]), cache)
    return cache


def run(model: DiffusionGemma, cache: PromptCache, **options: Any) -> Written:
    given: dict[str, Any] = {
        "forced_ids": [],
        "allowed": lambda _ids: None,
        "draft_ids": [],
        "banned_ids": [],
        "ends": lambda token_id: False,
        "closes": lambda ids: False,
        "max_tokens": 12,
        "max_passes": 100,
        "cancel": Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic),
    }
    before = [rows.between(0, cache.length).clone() for rows in cache._layers]  # type: ignore[reportPrivateUsage]
    written = finished(write(model, cache, PROMPT[-1], **(given | options)))
    assert cache.length == len(PROMPT)
    after = [rows.between(0, cache.length) for rows in cache._layers]  # type: ignore[reportPrivateUsage]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True)), "the prompt was changed"
    return written


@torch.no_grad()
def plainly(model: DiffusionGemma, num_tokens: int, forced: list[int], banned: list[int]) -> list[int]:
    ids = [*PROMPT, *forced]
    while len(ids) < len(PROMPT) + num_tokens:
        fresh = PromptCache(model.config, capacity=8, dtype=torch.float32, device=CPU)
        logits = model.logits(model.encode(torch.tensor([ids]), fresh))[0, -1]
        logits[banned] = -torch.inf
        ids.append(int(logits.argmax()))
    return ids[len(PROMPT) :]


@pytest.mark.parametrize("forced", [[], [70], [70, 71]])
@pytest.mark.parametrize("banned", [[], list(range(0, 300, 2))])
def test_every_token_is_the_likeliest(
    model: DiffusionGemma, cache: PromptCache, forced: list[int], banned: list[int]
) -> None:
    written = run(model, cache, forced_ids=forced, banned_ids=banned)
    assert written.ids == plainly(model, 12, forced, banned)
    assert written.passes == 12 - len(forced)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 12), noise=st.lists(st.integers(9, 319), max_size=8))
def test_draft_saves_passes_and_changes_nothing(
    model: DiffusionGemma, cache: PromptCache, cut: int, noise: list[int]
) -> None:
    expected = run(model, cache)
    written = run(model, cache, draft_ids=expected.ids[:cut] + noise)
    assert written.ids == expected.ids
    assert written.passes <= 12 - min(cut, 11)


def test_wrong_token_in_a_draft_costs_one_pass(model: DiffusionGemma, cache: PromptCache) -> None:
    ids = run(model, cache).ids
    wrong = [*ids[:5], (ids[5] + 1) % 320, *ids[6:]]
    assert run(model, cache, draft_ids=wrong).passes == 2


def test_writing_ends_at_an_end_token(model: DiffusionGemma, cache: PromptCache) -> None:
    ids = run(model, cache).ids
    last = next(i for i in range(3, 12) if ids[i] not in ids[:i])
    for draft in ([], ids, ids[:2]):
        written = run(model, cache, ends=lambda token_id: token_id == ids[last], draft_ids=draft)
        assert (written.ids, written.ended) == (ids[:last], True)


def test_first_free_token_is_one_of_the_allowed(model: DiffusionGemma, cache: PromptCache) -> None:
    start = Opening(given_ids=(70,), first_ids=(200, 201))
    for draft in ([], [99, 98]):
        written = run(model, cache, forced_ids=[70], allowed=start.allowed, draft_ids=draft)
        assert written.ids[0] == 70 and written.ids[1] in {200, 201}


def test_cancel_takes_effect_before_the_next_pass(model: DiffusionGemma, cache: PromptCache) -> None:
    cancel = Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic)
    written = run(model, cache, cancel=cancel, ends=lambda _token_id: cancel.set())
    assert (written.passes, written.ended, len(written.ids)) == (1, False, 1)


def test_a_token_that_closes_the_middle_is_its_last(model: DiffusionGemma, cache: PromptCache) -> None:
    ids = plainly(model, 8, [], [])
    last = ids[4]
    first = ids.index(last)
    written = run(model, cache, closes=lambda ids: ids[-1] == last)
    assert (written.ids, written.ended, written.passes) == (ids[: first + 1], True, first + 1)


@pytest.mark.parametrize("wrong_at", [None, 0, 2])
def test_guesses_save_passes_and_change_nothing(
    model: DiffusionGemma, cache: PromptCache, wrong_at: int | None
) -> None:
    ids = plainly(model, 12, [], [])
    asked: list[int] = []

    def guess(decided: Sequence[int]) -> list[int]:
        asked.append(len(decided))
        right = ids[len(decided) : len(decided) + 3]
        return right if wrong_at is None else [*right[:wrong_at], 5]

    written = run(model, cache, guess=guess)
    assert written.ids == ids
    kept = 4 if wrong_at is None else wrong_at + 1
    assert asked == list(range(0, 12, kept)), "what is left of a wrong guess is not checked"
    assert written.passes == len(asked)


def test_best_fork_is_the_likeliest_beginning_that_leads_away(model: DiffusionGemma, cache: PromptCache) -> None:
    """Compared with the product of the probabilities along the text, each from a prompt of its own."""
    forks, length = Forks(), 6
    written = run(model, cache, forks=forks, max_tokens=length).ids
    with torch.no_grad():
        longer = PromptCache(model.config, capacity=16, dtype=torch.float32, device=CPU)
        logprobs = model.logits(model.encode(torch.tensor([[*PROMPT, *written]]), longer))[0, -length - 1 : -1]
        logprobs = logprobs.log_softmax(-1)
    chosen = logprobs.gather(-1, torch.tensor(written)[:, None])[:, 0]
    before = chosen.cumsum(0) - chosen
    expected = {
        (*written[:place], other): float(before[place] + logprobs[place, other])
        for place in range(length)
        for other in logprobs[place].topk(8).indices.tolist()
        if other != written[place]
    }
    fork = forks.best(lambda _ids: True)
    assert fork is not None
    assert fork.ids == max(expected, key=lambda ids: expected[ids])
    assert fork.logprob == pytest.approx(expected[fork.ids], abs=1e-4)
    others = {ids: logprob for ids, logprob in expected.items() if len(ids) == 3 and ids != fork.ids}
    third = forks.best(lambda ids: tuple(ids) in others)
    assert third is not None and third.ids == max(others, key=lambda ids: others[ids])
    assert forks.best(lambda _ids: False) is None


def test_forks_are_the_same_with_a_draft(model: DiffusionGemma, cache: PromptCache) -> None:
    plain, drafted = Forks(), Forks()
    written = run(model, cache, forks=plain).ids
    run(model, cache, forks=drafted, draft_ids=[*written[:4], 5, *written[5:]])
    one, other = plain.best(lambda _ids: True), drafted.best(lambda _ids: True)
    assert one is not None and other is not None
    assert one.ids == other.ids and one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_token_that_is_not_allowed_is_no_fork(model: DiffusionGemma, cache: PromptCache) -> None:
    forks, able = Forks(), [7, 9]
    run(model, cache, forks=forks, max_tokens=1, allowed=lambda _ids: able)
    fork = forks.best(lambda _ids: True)
    assert fork is not None and len(fork.ids) == 1 and fork.ids[0] in able
    assert forks.best(lambda ids: ids[-1] not in able) is None
