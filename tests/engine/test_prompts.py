"""A reused prompt must be the prompt: cached and fresh give the same logits, whatever was typed before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from dgemma_engine.model import DiffusionGemma
from dgemma_engine.ops import Ops
from dgemma_engine.prompts import PromptStore
from dgemma_engine.weights import load_model
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def model(make_checkpoint: Callable[..., Any]) -> DiffusionGemma:
    folder = make_checkpoint(seed=31, spread=0.1).folder
    return load_model(folder, Ops.reference(), device=torch.device("cpu"), dtype=torch.float32)


def logits(model: DiffusionGemma, store: PromptStore, document: str, ids: list[int]) -> torch.Tensor:
    cache = store.encoded(document, ids)
    assert cache.length == len(ids)
    with torch.inference_mode():
        return model.logits(model.decode(torch.arange(40, 46)[None], cache))


EDITS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.lists(st.integers(0, 319), min_size=1, max_size=20)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(edits=EDITS)
def test_reused_equals_fresh_over_random_edits(model: DiffusionGemma, edits: list[tuple[str, int, list[int]]]) -> None:
    store = PromptStore(model, num_documents=2)
    texts: dict[str, list[int]] = {"a": [2], "b": [2]}
    for document, kept, added in edits:
        texts[document] = texts[document][: kept + 1] + added
        fresh = logits(model, PromptStore(model, num_documents=0), document, texts[document])
        assert (logits(model, store, document, texts[document]) - fresh).abs().max() < 1e-4


def count_encoded(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts: list[int] = []
    encode = model.prefill

    def counting(ids_BT: torch.Tensor, *args: Any, **options: Any) -> None:
        counts.append(ids_BT.shape[1])
        encode(ids_BT, *args, **options)

    monkeypatch.setattr(model, "prefill", counting)
    return counts


def test_only_new_tokens_are_encoded(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, store = count_encoded(model, monkeypatch), PromptStore(model)
    store.encoded("a", [2, 20, 21, 22])
    store.encoded("a", [2, 20, 21, 22, 23])
    store.encoded("a", [2, 20, 30])
    store.encoded("a", [2, 20, 30])
    store.encoded("b", [2, 20])
    assert counts == [4, 1, 1, 2]


def test_least_recently_used_document_goes_first(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, store = count_encoded(model, monkeypatch), PromptStore(model, num_documents=2)
    for document in "abac":
        store.encoded(document, [2, 20, 21])
    store.encoded("a", [2, 20, 21])
    store.encoded("b", [2, 20, 21])
    assert counts == [3, 3, 3, 3]


def test_memory_bound_keeps_the_newest(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, store = count_encoded(model, monkeypatch), PromptStore(model, max_bytes=1)
    for document in "aabb":
        store.encoded(document, [2, 20, 21])
    store.encoded("a", [2, 20, 21])
    assert counts == [3, 3, 3]


def test_fault_while_encoding_leaves_nothing_behind(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PromptStore(model)
    store.encoded("a", [2, 20, 21])
    with monkeypatch.context() as patch:
        patch.setattr(model, "prefill", lambda *_args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.encoded("a", [2, 20, 21, 22, 23])
    fresh = logits(model, PromptStore(model), "a", [2, 20, 21, 22])
    assert (logits(model, store, "a", [2, 20, 21, 22]) - fresh).abs().max() < 1e-4


def test_negative_number_of_documents(model: DiffusionGemma) -> None:
    with pytest.raises(ValueError, match="num_documents=-1 must not be negative"):
        PromptStore(model, num_documents=-1)
