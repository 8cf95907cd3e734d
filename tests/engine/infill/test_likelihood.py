"""Likelihoods of packed branches against scoring each one alone; and those of models without a causal mode."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint.loader import load_model
from dgemma_engine.diffusion.absorbing_mask import AbsorbingMask
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.masked.weights import load_masked
from dgemma_engine.infill.likelihood import Branch, likelihoods, masked_likelihoods
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel

from tests.masked_checkpoints import MASK, make_masked
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
    """Log-probability of each of `ids` after the prompt, and the distribution after each prefix of them."""
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


def test_candidate_that_may_end_in_two_ways_gets_the_sum_of_both(model: DiffusionGemma, cache: PromptCache) -> None:
    """The last token and then an end, or one token that is both: `)` and a line break, or `)` with a line break."""
    joined, ends = {70: (90, 91), 81: (), 72: (92,)}, frozenset({7, 1})
    judged = likelihoods(
        model, cache, PROMPT[-1], BRANCHES, end_ids=ends, banned_ids=[3], ending_with=lambda last: joined.get(last, ())
    )
    for branch, likelihood in zip(BRANCHES, judged, strict=True):
        expected, logprobs = alone(model, branch.middle_ids + branch.suffix_ids, [3])
        size = len(branch.middle_ids)
        goes_on, at_once = math.exp(expected[size - 1]), 0.0
        for token_id in joined.get(branch.middle_ids[-1], ()):
            at_once += math.exp(float(logprobs[size - 1, token_id]))
        apart = goes_on * float(logprobs[size, sorted(ends)].exp().sum())
        whole = sum(expected[: size - 1]) + math.log(apart + at_once)
        assert likelihood.end is not None
        assert sum(likelihood.middle) + likelihood.end == pytest.approx(whole, abs=model_error(64))
        assert likelihood.middle[:-1] == pytest.approx(expected[: size - 1], abs=model_error(64))
        assert likelihood.middle[-1] == pytest.approx(math.log(goes_on + at_once), abs=model_error(64))
        assert likelihood.end <= 0 and likelihood.middle[-1] <= 0
        assert likelihood.suffix == pytest.approx(expected[size:], abs=model_error(64))


@pytest.mark.parametrize("again", [(70, 80, 81), (71, 72, 73), (90,)], ids=["longer", "other tokens", "one token"])
def test_text_after_a_candidate_may_be_written_again_in_place_of_an_end(
    model: DiffusionGemma, cache: PromptCache, again: tuple[int, ...]
) -> None:
    ends, alike = frozenset({7, 1}), {again[-1]: [again[-1], 100, 101]}
    branches = [replace(BRANCHES[0], again_ids=again), BRANCHES[2]]
    judged, other = likelihoods(
        model, cache, PROMPT[-1], branches, end_ids=ends, banned_ids=[], going_on=alike.__getitem__
    )
    expected, logprobs = alone(model, branches[0].middle_ids, [])
    ended = sum(expected) + float(logprobs[len(expected), sorted(ends)].logsumexp(-1))
    expected, logprobs = alone(model, again, [])
    repeated = sum(expected[:-1]) + float(logprobs[len(again) - 1, alike[again[-1]]].logsumexp(-1))
    assert judged.end is not None and judged.end <= 0
    assert sum(judged.middle) + judged.end == pytest.approx(
        math.log(math.exp(ended) + math.exp(repeated)), abs=model_error(64)
    )
    [plain] = likelihoods(model, cache, PROMPT[-1], BRANCHES[2:], end_ids=ends, banned_ids=[])
    assert [*other.middle, other.end] == pytest.approx([*plain.middle, plain.end], abs=model_error(64))


def test_banned_candidate_has_no_probability_whatever_follows(model: DiffusionGemma, cache: PromptCache) -> None:
    branches = [replace(BRANCHES[0], again_ids=(71, 80)), BRANCHES[2]]
    banned, other = likelihoods(
        model, cache, PROMPT[-1], branches, end_ids=frozenset({7}), banned_ids=[70], going_on=lambda last: [last]
    )
    assert banned.middle == [-math.inf] and banned.end is not None and math.isfinite(banned.end)
    assert not math.isnan(sum(other.middle))


def test_limited_tokens_are_judged_among_those_that_are_allowed(model: DiffusionGemma, cache: PromptCache) -> None:
    """The first tokens of a candidate may be limited; those after them are judged among all tokens."""
    options = {(): [40, 41, 42], (70,): [], (72,): [5, 6]}
    judged = likelihoods(
        model, cache, PROMPT[-1], BRANCHES, end_ids=frozenset(), banned_ids=[],
        allowed=lambda ids: options.get(tuple(ids)),
    )  # fmt: skip
    for branch, likelihood in zip(BRANCHES, judged, strict=True):
        expected, logprobs = alone(model, branch.middle_ids + branch.suffix_ids, [])
        size, place = len(branch.middle_ids), 0
        while place < size and (able := options.get(branch.middle_ids[:place])) is not None:
            expected[place] -= float(logprobs[place, [*{branch.middle_ids[place], *able}]].logsumexp(-1))
            place += 1
        assert place > 0
        assert likelihood.middle == pytest.approx(expected[:size], abs=model_error(64))
        assert likelihood.suffix == pytest.approx(expected[size:], abs=model_error(64))


def test_model_that_ends_nothing_has_no_end(model: DiffusionGemma, cache: PromptCache) -> None:
    [likelihood] = likelihoods(model, cache, PROMPT[-1], BRANCHES[:1], end_ids=frozenset(), banned_ids=[])
    assert likelihood.end is None


def test_prompt_cache_is_left_as_it_was(model: DiffusionGemma, cache: PromptCache) -> None:
    before = [rows.between(0, cache.length).clone() for rows in cache._layers]  # type: ignore[reportPrivateUsage]
    likelihoods(model, cache, PROMPT[-1], BRANCHES, end_ids=frozenset(), banned_ids=[])
    assert cache.length == len(PROMPT)
    after = [rows.between(0, cache.length) for rows in cache._layers]  # type: ignore[reportPrivateUsage]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


SEEN = Branch(middle_ids=(70, 71, 72), suffix_ids=(80, 81, 82))
SHORT = Branch(middle_ids=(75,), suffix_ids=())


@pytest.mark.parametrize("kind", ["open-dcoder", "a2d-qwen3"])
def test_masked_likelihood_hides_what_follows_a_block_in_canvases_of_one_length(tmp_path: Path, kind: str) -> None:
    checkpoint = make_masked(tmp_path, kind, spread=0.15)
    judged = masked(checkpoint.folder, [SEEN, SHORT], Cancel(deadline_s=1e9, clock=lambda: 0.0))
    length, block_tokens = 6, 4
    for branch, likelihood in zip([SEEN, SHORT], judged, strict=True):
        ids, expected = [*branch.middle_ids, *branch.suffix_ids], list[float]()
        for place, token in enumerate(ids):
            num_shown = place // block_tokens * block_tokens
            shown = [*ids[:num_shown], *[MASK] * (length - num_shown)]
            with torch.no_grad():
                logits_V = checkpoint.logits([*PROMPT, *shown])[len(PROMPT) + place]
            logits_V[[3, MASK]] = -torch.inf
            expected.append(float(logits_V.log_softmax(-1)[token]))
        size = len(branch.middle_ids)
        assert likelihood.middle == pytest.approx(expected[:size], abs=model_error(64))
        assert likelihood.suffix == pytest.approx(expected[size:], abs=model_error(64))
        assert likelihood.end is None


def test_masked_likelihood_stops_at_the_deadline_after_at_least_one_branch(tmp_path: Path) -> None:
    folder = make_masked(tmp_path, "a2d-qwen2").folder
    late = Cancel(deadline_s=1.0, clock=lambda: 2.0)
    assert len(masked(folder, [SEEN, SHORT], late)) == 1
    late.set()
    assert masked(folder, [SEEN, SHORT], late) == []


def masked(folder: Path, branches: list[Branch], cancel: Cancel) -> Any:
    model = load_masked(read_facts(folder), Ops.reference(), device=CPU, dtype=torch.float32)
    cache = PromptCache(model.config, capacity=8, dtype=torch.float32, device=CPU)
    model.prefill(torch.tensor([PROMPT]), cache)
    noise = AbsorbingMask(mask_id=MASK)
    return finished(masked_likelihoods(model, cache, branches, noise=noise, banned_ids=[3], cancel=cancel))
