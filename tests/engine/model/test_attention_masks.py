"""Rows that share a pass give the results that they give alone, and attend exactly to what the masks allow."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint.loader import load_model
from dgemma_engine.model import attention_masks
from dgemma_engine.model.config import LayerKind
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from hypothesis import given, settings
from hypothesis import strategies as st

SLIDING, FULL = "sliding_attention", "full_attention"
WINDOW = 8
# Share of the largest value; float32 itself errs by 5e-6 of it in these random layers.
TOLERANCE = 1e-5
CPU = torch.device("cpu")
LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def model(make_checkpoint: Callable[..., Any]) -> DiffusionGemma:
    """Chooses every expert: a rounding error that swaps two experts of equal weight is not a wrong mask."""
    layers = [SLIDING, FULL, SLIDING, FULL]
    checkpoint = make_checkpoint(seed=71, layer_types=layers, sliding_window=WINDOW, num_experts=3, top_k_experts=3)
    return load_model(checkpoint.folder, Ops.reference(), device=CPU, dtype=torch.float32)


@pytest.fixture(scope="module")
def exact_model(model: DiffusionGemma) -> DiffusionGemma:
    """In float64, so that Hypothesis finds no input whose rounding errors look like a wrong mask."""
    return copy.deepcopy(model).double()


@pytest.fixture(scope="module")
def routed_model(make_checkpoint: Callable[..., Any]) -> DiffusionGemma:
    layers = [SLIDING, SLIDING, FULL]
    checkpoint = make_checkpoint(seed=72, layer_types=layers, sliding_window=5, num_experts=16, top_k_experts=2)
    return load_model(checkpoint.folder, Ops.reference(), device=CPU, dtype=torch.float32)


def draw_ids(seed: int, length: int) -> torch.Tensor:
    return torch.randint(0, 320, (1, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def encoded(model: DiffusionGemma, ids_BT: torch.Tensor) -> PromptCache:
    cache = PromptCache(model.config, capacity=4, dtype=model.dtype, device=CPU)
    if ids_BT.shape[1]:
        model.encode(ids_BT, cache)
    return cache


def rows_of(lengths: list[int]) -> torch.Tensor:
    return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))


def restarted(lengths: list[int], start: int) -> torch.Tensor:
    return torch.cat([torch.arange(start, start + length) for length in lengths])


def check_equal(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert (ours - theirs).abs().max() < TOLERANCE * theirs.abs().max()


@torch.no_grad()
def check_packed(model: DiffusionGemma, prompt_length: int, lengths: list[int], *, conditioned: bool) -> None:
    cache = encoded(model, draw_ids(1, prompt_length))
    canvas_BL = draw_ids(2, sum(lengths))
    soft_BLD = None
    if conditioned:
        earlier_BLV = torch.randn(1, sum(lengths), 320, generator=torch.Generator().manual_seed(3)) * 3
        soft_BLD = model.soft_embeddings(earlier_BLV.softmax(-1))
    together = model.decode(
        canvas_BL,
        cache,
        soft_BLD=soft_BLD,
        positions_BL=restarted(lengths, prompt_length)[None],
        attention_masks=attention_masks.packed(
            rows_of(lengths), num_past=prompt_length, sliding_window=model.config.sliding_window
        ),
    )
    softs = [None] * len(lengths) if soft_BLD is None else soft_BLD.split(lengths, dim=1)
    canvases = canvas_BL.split(lengths, dim=1)
    alone = [model.decode(canvas, cache, soft_BLD=soft) for canvas, soft in zip(canvases, softs, strict=True)]
    check_equal(together, torch.cat(alone, dim=1))


@torch.no_grad()
def check_branches(model: DiffusionGemma, prompt_length: int, lengths: list[int], *, num_again: int) -> None:
    """Encodes branches that begin with the prompt's last `num_again` tokens together and, on fresh caches, alone."""
    prompt_BT = draw_ids(4, prompt_length)
    start = prompt_length - num_again
    branches = [torch.cat((prompt_BT[:, start:], draw_ids(10 + i, n)), dim=1) for i, n in enumerate(lengths)]
    cache = encoded(model, prompt_BT)
    before = stored(model, cache)
    sizes = [branch.shape[1] for branch in branches]
    position_L = restarted(sizes, start)
    together = model.encode(
        torch.cat(branches, dim=1),
        cache,
        positions_BT=position_L[None],
        attention_masks=attention_masks.branches(
            rows_of(sizes),
            position_L,
            num_past=prompt_length,
            sliding_window=model.config.sliding_window,
            hidden_from=start,
        ),
    )
    cache.truncate(prompt_length)
    for branch, hidden_BTD in zip(branches, together.split(sizes, dim=1), strict=True):
        whole_BTD = model.encode(torch.cat((prompt_BT[:, :start], branch), dim=1), encoded(model, prompt_BT[:, :0]))
        check_equal(hidden_BTD, whole_BTD[:, start:])
    after = stored(model, cache)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def stored(model: DiffusionGemma, cache: PromptCache) -> list[torch.Tensor]:
    """Copies keys and values of every layer, read through an empty canvas."""
    config = model.config
    copies: list[torch.Tensor] = []
    for layer_idx, kind in enumerate(config.layer_kinds):
        nothing = torch.empty(1, config.num_kv_heads[kind], 0, config.head_dim[kind], dtype=model.dtype)
        copies += [tensor.clone() for tensor in cache.with_canvas(layer_idx, nothing, nothing, cache.length)]
    return copies


@pytest.mark.parametrize("prompt_length", [1, WINDOW - 2, WINDOW - 1, WINDOW, WINDOW + 1, 40])
@pytest.mark.parametrize("conditioned", [False, True])
def test_packed_canvases_equal_separate_ones(model: DiffusionGemma, prompt_length: int, conditioned: bool) -> None:
    check_packed(model, prompt_length, [1, 9, 3, 24, 3], conditioned=conditioned)


@settings(max_examples=25, deadline=None)
@given(prompt_length=st.integers(0, 30), lengths=LENGTHS, conditioned=st.booleans())
def test_packed_canvases_of_any_lengths_equal_separate_ones(
    exact_model: DiffusionGemma, prompt_length: int, lengths: list[int], conditioned: bool
) -> None:
    check_packed(exact_model, prompt_length, lengths, conditioned=conditioned)


@pytest.mark.parametrize("prompt_length", [3, 17])
def test_packed_canvases_are_routed_as_separate_ones(routed_model: DiffusionGemma, prompt_length: int) -> None:
    check_packed(routed_model, prompt_length, [4, 7, 2], conditioned=True)


@pytest.mark.parametrize("prompt_length", [1, WINDOW - 1, WINDOW, WINDOW + 1, 40])
@pytest.mark.parametrize("num_again", [0, 1])
def test_branches_equal_separate_encodes(model: DiffusionGemma, prompt_length: int, num_again: int) -> None:
    check_branches(model, prompt_length, [1, 12, 3, 20, 3], num_again=num_again)


@settings(max_examples=25, deadline=None)
@given(prompt_length=st.integers(1, 30), lengths=LENGTHS, num_again=st.integers(0, 3))
def test_branches_of_any_lengths_equal_separate_encodes(
    exact_model: DiffusionGemma, prompt_length: int, lengths: list[int], num_again: int
) -> None:
    check_branches(exact_model, prompt_length, lengths, num_again=min(num_again, prompt_length))


@pytest.mark.parametrize("prompt_length", [3, 17])
def test_branches_are_routed_as_separate_encodes(routed_model: DiffusionGemma, prompt_length: int) -> None:
    check_branches(routed_model, prompt_length, [4, 7, 2], num_again=1)


def test_hidden_position_beyond_the_cache_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"\(4, 3\)"):
        attention_masks.branches(torch.zeros(2), torch.arange(3, 5), num_past=3, sliding_window=WINDOW, hidden_from=4)


def test_mask_is_chosen_by_the_kind_of_layer() -> None:
    both = attention_masks.packed(torch.zeros(2), num_past=9, sliding_window=4)
    assert both.of(LayerKind.FULL) is both.full
    assert both.of(LayerKind.SLIDING) is both.sliding
    assert [mask.shape[-1] for mask in (both.full, both.sliding) if mask is not None] == [11, 5]
