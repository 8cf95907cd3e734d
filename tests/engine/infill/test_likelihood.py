"""Likelihoods of packed branches against scoring each one alone, token by token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint.loader import load_model
from dgemma_engine.infill.likelihood import Branch, likelihoods
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma

from tests.rounding import model_error

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
PROMPT = [2, *range(40, 61)]
BRANCHES = [
    Branch(middle_ids=(70,), suffix_ids=(80, 81, 82)),
    Branch(middle_ids=(71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81), suffix_ids=(80, 81)),
    Branch(middle_ids=(72, 70), suffix_ids=()),
]


@pytest.fixture(scope="module")
def model(make_checkpoint: Callable[..., Any]) -> DiffusionGemma:
    folder = make_checkpoint(seed=31, spread=0.2).folder
    return load_model(folder, Ops.reference(), device=CPU, dtype=torch.float32)


@pytest.fixture
def cache(model: DiffusionGemma) -> PromptCache:
    cache = PromptCache(model.config, capacity=8, dtype=torch.float32, device=CPU)
    with torch.no_grad():
        model.encode(torch.tensor([PROMPT]), cache)
    return cache


@torch.no_grad()
def alone(model: DiffusionGemma, ids: tuple[int, ...], banned: list[int]) -> tuple[list[float], torch.Tensor]:
    """Log-probability of each of `ids` behind the prompt, and the distribution behind each prefix of them."""
    fresh = PromptCache(model.config, capacity=8, dtype=torch.float32, device=CPU)
    logits = model.logits(model.encode(torch.tensor([[*PROMPT, *ids]]), fresh))[0, len(PROMPT) - 1 :]
    logits[:, banned] = -torch.inf
    logprobs = logits.log_softmax(-1)
    return [logprobs[i, token].item() for i, token in enumerate(ids)], logprobs


@pytest.mark.parametrize("banned", [[], [0, 3, 100]])
def test_packed_branches_are_judged_as_if_alone(model: DiffusionGemma, cache: PromptCache, banned: list[int]) -> None:
    judged = likelihoods(model, cache, PROMPT[-1], BRANCHES, end_ids=frozenset({7, 1}), banned_ids=banned)
    for branch, likelihood in zip(BRANCHES, judged, strict=True):
        expected, logprobs = alone(model, branch.middle_ids + branch.suffix_ids, banned)
        size = len(branch.middle_ids)
        assert likelihood.middle == pytest.approx(expected[:size], abs=model_error(64))
        assert likelihood.suffix == pytest.approx(expected[size:], abs=model_error(64))
        assert likelihood.end == pytest.approx(logprobs[size, [1, 7]].logsumexp(-1).item(), abs=model_error(64))


def test_model_that_ends_nothing_has_no_end(model: DiffusionGemma, cache: PromptCache) -> None:
    [likelihood] = likelihoods(model, cache, PROMPT[-1], BRANCHES[:1], end_ids=frozenset(), banned_ids=[])
    assert likelihood.end is None


def test_prompt_cache_is_left_as_it_was(model: DiffusionGemma, cache: PromptCache) -> None:
    before = [rows.between(0, cache.length).clone() for rows in cache._layers]  # type: ignore[reportPrivateUsage]
    likelihoods(model, cache, PROMPT[-1], BRANCHES, end_ids=frozenset(), banned_ids=[])
    assert cache.length == len(PROMPT)
    after = [rows.between(0, cache.length) for rows in cache._layers]  # type: ignore[reportPrivateUsage]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
