"""The attention kernel against the reference's masks: packed rows, window edges, empty prompts, causal branches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from dgemma_kernels import reference
from dgemma_kernels.launch.launch_table import for_device
from dgemma_kernels.ops import attention
from dgemma_kernels.tensors.kv_store import KVStore
from torch import Tensor

from tests.kernels.interpreted.errors import assert_as_close, draw

CAPACITY = 60


def tensors(
    num_tokens: int, heads: int, kv_heads: int, size: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    q = draw(num_tokens, heads, size).to(device).bfloat16()
    k, v = (draw(kv_heads, CAPACITY, size, seed=i).to(device).bfloat16() for i in (1, 2))
    return q * size**-0.5, k, v


def scalar(value: int, device: torch.device) -> Tensor:
    return torch.tensor([value], dtype=torch.int32, device=device)


def exact(operation: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, *places: Any) -> Tensor:
    return operation(q.double(), KVStore.of(k.double(), v.double()), *places)


def poisoned(store: Tensor, start: int) -> Tensor:
    store = store.clone()
    store[:, start:] = torch.nan
    return store


@pytest.mark.parametrize("stored", [0, 1, 7, 8, 9, 25])
@pytest.mark.parametrize("window", [None, 8])
def test_canvases_see_themselves_and_the_prompt(stored: int, window: int | None, device: torch.device) -> None:
    row = torch.tensor([0] * 5 + [1] * 1 + [2] * 13, dtype=torch.int32, device=device)
    q, k, v = tensors(19, 4, 2, 32, device)
    k, v = poisoned(k, stored + 19), poisoned(v, stored + 19)
    places = (row, scalar(stored, device), scalar(stored, device), window)
    got, expected = (module.canvas(q, KVStore.of(k, v), *places) for module in (attention, reference.attention))
    assert_as_close(got, expected, exact(reference.attention.canvas, q, k, v, *places))


@pytest.mark.parametrize("window", [None, 8])
def test_tokens_between_prompt_and_canvas_are_hidden(window: int | None, device: torch.device) -> None:
    """A block padded to a captured length: its padding is before the canvas."""
    q, k, v = tensors(7, 4, 2, 32, device)
    row = torch.zeros(7, dtype=torch.int32, device=device)
    got = attention.canvas(q, KVStore.of(k, v), row, scalar(20, device), scalar(25, device), window)
    closed = [torch.cat((store[:, :20], store[:, 25:32]), dim=1).contiguous() for store in (k, v)]
    places = (row, scalar(20, device), scalar(20, device), window)
    expected = reference.attention.canvas(q, KVStore.of(*closed), *places)
    assert_as_close(got, expected, exact(reference.attention.canvas, q, *closed, *places))
    twin = reference.attention.canvas(q, KVStore.of(k, v), row, scalar(20, device), scalar(25, device), window)
    assert torch.allclose(twin.float(), expected.float(), atol=1e-2)


def test_store_that_begins_after_the_prompts_first_token(device: torch.device) -> None:
    """A sliding layer drops the tokens before every window."""
    q, k, v = tensors(9, 4, 2, 32, device)
    row = torch.zeros(9, dtype=torch.int32, device=device)
    position = torch.arange(25, 34, dtype=torch.int32, device=device)
    whole, late = KVStore.of(k, v), KVStore.of(k[:, 17:].contiguous(), v[:, 17:].contiguous(), 17)
    stored = scalar(25, device)
    for module in (attention, reference.attention):
        one, other = (module.canvas(q, store, row, stored, stored, 8) for store in (whole, late))
        assert torch.allclose(one.float(), other.float(), atol=1e-2)
        one, other = (module.causal(q, store, row, position, stored, stored, 8) for store in (whole, late))
        assert torch.allclose(one.float(), other.float(), atol=1e-2)


def test_packed_rows_equal_separate_rows(device: torch.device) -> None:
    q, k, v = tensors(12, 4, 1, 32, device)
    row = torch.tensor([0] * 7 + [1] * 5, dtype=torch.int32, device=device)
    packed = attention.canvas(q, KVStore.of(k, v), row, scalar(9, device), scalar(9, device), 4)
    moved = [torch.cat((store[:, :9], store[:, 16:21]), dim=1).contiguous() for store in (k, v)]
    places = (row[7:] - 1, scalar(9, device), scalar(9, device), 4)
    alone = attention.canvas(q[7:].contiguous(), KVStore.of(*moved), *places)
    assert torch.allclose(packed[7:].float(), alone.float(), atol=1e-2)


@pytest.mark.parametrize(("stored", "tokens"), [(0, 1), (0, 33), (5, 20), (20, 3)])
@pytest.mark.parametrize("window", [None, 6])
def test_prefill(stored: int, tokens: int, window: int | None, device: torch.device) -> None:
    q, k, v = tensors(tokens, 4, 2, 32, device)
    row = torch.zeros(tokens, dtype=torch.int32, device=device)
    position = torch.arange(stored, stored + tokens, dtype=torch.int32, device=device)
    places = (row, position, scalar(stored, device), scalar(stored, device), window)
    k, v = poisoned(k, stored + tokens), poisoned(v, stored + tokens)
    got, expected = (module.causal(q, KVStore.of(k, v), *places) for module in (attention, reference.attention))
    assert_as_close(got, expected, exact(reference.attention.causal, q, k, v, *places))


@pytest.mark.parametrize("window", [None, 5])
def test_branches_hide_the_stored_tokens_that_they_repeat(window: int | None, device: torch.device) -> None:
    q, k, v = tensors(9, 2, 2, 32, device)
    row = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1], dtype=torch.int32, device=device)
    position = torch.tensor([10, 11, 12, 13, 10, 11, 12, 13, 14], dtype=torch.int32, device=device)
    places = (row, position, scalar(10, device), scalar(12, device), window)
    got, expected = (module.causal(q, KVStore.of(k, v), *places) for module in (attention, reference.attention))
    assert_as_close(got, expected, exact(reference.attention.causal, q, k, v, *places))


@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 2, 256), (8, 1, 512)])
def test_head_sizes_of_the_big_model(heads: int, kv_heads: int, size: int, device: torch.device) -> None:
    q, k, v = tensors(5, heads, kv_heads, size, device)
    row = torch.tensor([0, 0, 0, 1, 1], dtype=torch.int32, device=device)
    places = (row, scalar(18, device), scalar(18, device), None)
    got, expected = (module.canvas(q, KVStore.of(k, v), *places) for module in (attention, reference.attention))
    assert_as_close(got, expected, exact(reference.attention.canvas, q, k, v, *places))


@pytest.mark.parametrize(("fill", "loops"), [(0, 2), (18, 2), (60, 1)])
@pytest.mark.parametrize(("visible", "stored"), [(0, 0), (25, 25), (20, 25), (0, 5)])
@pytest.mark.parametrize("window", [None, 8])
def test_keys_split_among_programs(
    fill: int, loops: int, visible: int, stored: int, window: int | None, device: torch.device
) -> None:
    """More splits than blocks of keys, lengths that no block divides, hidden keys between prompt and canvas."""
    table = for_device(device).changed({"attention": {"FILL": fill, "LOOPS": loops}})
    row = torch.tensor([0] * 5 + [1] * 1 + [2] * 13, dtype=torch.int32, device=device)
    q, k, v = tensors(19, 4, 2, 32, device)
    k, v = poisoned(k, stored + 19), poisoned(v, stored + 19)
    places = (row, scalar(visible, device), scalar(stored, device), window)
    got = attention.canvas(q, KVStore.of(k, v), *places, table=table)
    expected = reference.attention.canvas(q, KVStore.of(k, v), *places)
    assert_as_close(got, expected, exact(reference.attention.canvas, q, k, v, *places))


@pytest.mark.parametrize(("fill", "loops"), [(0, 2), (6, 1), (4, 2)])
@pytest.mark.parametrize("window", [None, 5])
def test_branches_split_among_programs(fill: int, loops: int, window: int | None, device: torch.device) -> None:
    table = for_device(device).changed({"attention": {"FILL": fill, "LOOPS": loops}})
    q, k, v = tensors(9, 2, 2, 32, device)
    row = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1], dtype=torch.int32, device=device)
    position = torch.tensor([10, 11, 12, 13, 10, 11, 12, 13, 14], dtype=torch.int32, device=device)
    places = (row, position, scalar(10, device), scalar(12, device), window)
    got = attention.causal(q, KVStore.of(k, v), *places, table=table)
    expected = reference.attention.causal(q, KVStore.of(k, v), *places)
    assert_as_close(got, expected, exact(reference.attention.causal, q, k, v, *places))


@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 2, 256), (8, 1, 512)])
def test_heads_of_the_big_model_split_among_programs(
    heads: int, kv_heads: int, size: int, device: torch.device
) -> None:
    table = for_device(device).changed({"attention": {"FILL": 4, "LOOPS": 2}})
    q, k, v = tensors(5, heads, kv_heads, size, device)
    row = torch.tensor([0, 0, 0, 1, 1], dtype=torch.int32, device=device)
    places = (row, scalar(40, device), scalar(40, device), None)
    got = attention.canvas(q, KVStore.of(k, v), *places, table=table)
    expected = reference.attention.canvas(q, KVStore.of(k, v), *places)
    assert_as_close(got, expected, exact(reference.attention.canvas, q, k, v, *places))


def test_other_head_sizes_are_refused(device: torch.device) -> None:
    q, k, v = tensors(2, 2, 1, 48, device)
    with pytest.raises(ValueError, match="head_dim=48"):
        row = torch.zeros(2, dtype=torch.int32, device=device)
        attention.canvas(q, KVStore.of(k, v), row, scalar(3, device), scalar(3, device), None)
