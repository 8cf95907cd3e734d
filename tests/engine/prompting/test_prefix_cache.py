"""A reused prompt gives the logits of a newly encoded one, whatever was typed before."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint.loader import load_model
from dgemma_engine.diffusion import canvas as canvases
from dgemma_engine.diffusion.canvas import Row
from dgemma_engine.diffusion.denoiser import Denoiser, denoise
from dgemma_engine.diffusion.eager_executor import EagerExecutor
from dgemma_engine.diffusion.sampler import EntropyBound, Sampler, StableAndConfident, TemperatureSchedule, UniformNoise
from dgemma_engine.infill.autoregressive import write
from dgemma_engine.infill.likelihood import Branch, likelihoods
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.prompting import prefix_cache
from dgemma_engine.prompting.prefix_cache import PromptStore
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rounding import model_error

# Logits are of order 1.
TOLERANCE = model_error(64)


@pytest.fixture(scope="module")
def model(make_checkpoint: Callable[..., Any]) -> DiffusionGemma:
    folder = make_checkpoint(seed=31, spread=0.1).folder
    return load_model(folder, Ops.reference(), device=torch.device("cpu"), dtype=torch.float32)


def unhurried() -> Cancel:
    return Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic)


def encoded(store: PromptStore, document: str, ids: list[int]) -> PromptCache:
    cache = finished(store.encoded(document, ids, unhurried()))
    assert cache is not None and cache.length == len(ids)
    return cache


def use(model: DiffusionGemma, cache: PromptCache, last_id: int) -> None:
    """Uses the cache as a request does: canvases, ranking and generation all use the space after the prompt."""
    row = Row(num_free=5, head_ids=(30, 31))
    noise = UniformNoise(vocab_size=320)
    sampler = Sampler(
        num_steps=2,
        schedule=TemperatureSchedule(t_min=0.4, t_max=0.8),
        acceptance=EntropyBound(bound=1.0),
        noise=noise,
        stop=StableAndConfident(num_earlier=1, confidence=0.1),
    )
    canvas = canvases.start([row, row], noise, torch.device("cpu"))
    executor = EagerExecutor(model, cache, canvas, sampler, suppressed_ids=torch.tensor([], dtype=torch.int64))
    finished(denoise(Denoiser(executor, sampler), cancel=unhurried(), on_step=lambda _: None))
    branch = Branch(middle_ids=(50, 51), suffix_ids=(52,))
    likelihoods(model, cache, last_id, [branch, branch], end_ids=frozenset(), banned_ids=[])
    finished(
        write(
            model,
            cache,
            last_id,
            forced_ids=[],
            allowed=lambda _ids: None,
            draft_ids=[60, 61],
            banned_ids=[],
            closes=lambda _ids: False,
            ends=lambda token_id: False,
            max_tokens=4,
            max_passes=4,
            cancel=unhurried(),
        )
    )


def logits(model: DiffusionGemma, store: PromptStore, document: str, ids: list[int]) -> torch.Tensor:
    cache = encoded(store, document, ids)
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
        assert (logits(model, store, document, texts[document]) - fresh).abs().max() < TOLERANCE
        use(model, encoded(store, document, texts[document]), texts[document][-1])
        assert (logits(model, store, document, texts[document]) - fresh).abs().max() < TOLERANCE


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
    encoded(store, "a", [2, 20, 21, 22])
    encoded(store, "a", [2, 20, 21, 22, 23])
    encoded(store, "a", [2, 20, 30])
    encoded(store, "a", [2, 20, 30])
    encoded(store, "b", [2, 20])
    assert counts == [4, 1, 1, 2]


def test_least_recently_used_document_goes_first(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, store = count_encoded(model, monkeypatch), PromptStore(model, num_documents=2)
    for document in "abac":
        encoded(store, document, [2, 20, 21])
    encoded(store, "a", [2, 20, 21])
    encoded(store, "b", [2, 20, 21])
    assert counts == [3, 3, 3, 3]


def test_memory_bound_keeps_the_newest(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, store = count_encoded(model, monkeypatch), PromptStore(model, max_bytes=1)
    for document in "aabb":
        encoded(store, document, [2, 20, 21])
    encoded(store, "a", [2, 20, 21])
    assert counts == [3, 3, 3]


def test_room_is_made_before_a_prompt_is_allocated(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    store, held = PromptStore(model, max_bytes=1), list[int]()
    make = prefix_cache.PromptCache

    def count(*args: Any, **kwargs: Any) -> PromptCache:
        held.append(len(store._prompts.items()))  # pyright: ignore[reportPrivateUsage]
        return make(*args, **kwargs)

    monkeypatch.setattr(prefix_cache, "PromptCache", count)
    for document in "ab":
        encoded(store, document, [2, 20, 21])
    assert held == [0, 0]


def test_prompt_in_use_is_kept(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, store = count_encoded(model, monkeypatch), PromptStore(model, num_documents=1, max_bytes=1)
    store.in_use.add("a")
    for document in "aba":
        encoded(store, document, [2, 20, 21])
    store.in_use.discard("a")
    encoded(store, "b", [2, 20, 21])
    encoded(store, "a", [2, 20, 21])
    assert counts == [3, 3, 3, 3]


@pytest.mark.numerical
def test_error_while_encoding_stores_no_prompt(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PromptStore(model)
    encoded(store, "a", [2, 20, 21])
    with monkeypatch.context() as patch:
        patch.setattr(model, "prefill", lambda *_args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            encoded(store, "a", [2, 20, 21, 22, 23])
    fresh = logits(model, PromptStore(model), "a", [2, 20, 21, 22])
    assert (logits(model, store, "a", [2, 20, 21, 22]) - fresh).abs().max() < TOLERANCE


@pytest.mark.numerical
def test_cancelled_encoding_keeps_the_encoded_part(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, store = count_encoded(model, monkeypatch), PromptStore(model)
    ids = [2, *(20 + i % 200 for i in range(700))]
    ticks = iter(range(100))
    assert finished(store.encoded("a", ids, Cancel(deadline_s=1.5, clock=lambda: float(next(ticks))))) is None
    fresh = logits(model, PromptStore(model), "b", ids)
    counts.clear()
    assert (logits(model, store, "a", ids) - fresh).abs().max() < TOLERANCE
    assert sum(counts) == len(ids) - 2 * 256


@pytest.mark.numerical
def test_skipped_part_is_encoded_on_request(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, store = count_encoded(model, monkeypatch), PromptStore(model)
    encoded(store, "a", [2, 20, 21])
    short = finished(store.encoded("a", [2, 20, 21, 22, 23], unhurried(), most_left=2))
    assert short is not None and (short.length, counts) == (3, [3])
    fresh = logits(model, PromptStore(model), "b", [2, 20, 21, 22, 23])
    assert (logits(model, store, "a", [2, 20, 21, 22, 23]) - fresh).abs().max() < TOLERANCE
    whole = finished(store.encoded("a", [2, 20, 21, 22, 23, 24, 25, 26], unhurried(), most_left=2))
    assert whole is not None and whole.length == 8


def test_cancelled_before_it_starts_encodes_nothing(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, store, cancel = count_encoded(model, monkeypatch), PromptStore(model), unhurried()
    cancel.set()
    assert finished(store.encoded("a", [2, 20, 21], cancel)) is None
    assert counts == []
