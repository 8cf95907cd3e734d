"""Prompts whose sliding layers keep a window and a margin: the same hidden states, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch
from dgemma_engine.backends.cuda.graph_model import GraphModel
from dgemma_engine.backends.cuda.graphs import Graphs, repeat
from dgemma_engine.backends.cuda.model import FusedModel
from dgemma_engine.infill.autoregressive import write
from dgemma_engine.infill.likelihood import Branch, likelihoods
from dgemma_engine.model.config import LayerKind
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.kv_rows import sliding_rows
from dgemma_engine.model.ops import Ops
from dgemma_engine.prompting.prefix_cache import PromptStore
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel

from tests.engine.fused_models import WINDOW, draw_ids, load
from tests.engine.fused_models import write as write_model
from tests.rounding import model_error

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
EDIT, CANVAS = 6, 5
IDS = draw_ids(1, 120, CPU)[0].tolist()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[DiffusionModel, GraphModel]:
    folder = write_model(tmp_path_factory.mktemp("model"))
    fused = load(folder, Ops.fused_reference(), torch.float32, CPU)
    assert isinstance(fused, FusedModel)
    dropping = GraphModel(fused, Graphs(repeat))
    dropping.edit_tokens = EDIT
    return load(folder, Ops.reference(), torch.float32, CPU), dropping


def unhurried() -> Cancel:
    return Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic)


def prompt(store: PromptStore, ids: list[int]) -> PromptCache:
    cache = finished(store.encoded("document", ids, unhurried()))
    assert cache is not None and cache.length == len(ids)
    return cache


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def check(models: tuple[DiffusionModel, GraphModel], cache: PromptCache, ids: list[int]) -> None:
    """Compares a canvas, a ranking and generated tokens with those of a prompt that keeps everything."""
    plain, dropping = models
    whole = PromptCache(plain.config, capacity=len(ids), dtype=torch.float32, device=CPU)
    plain.prefill(torch.tensor([ids]), whole)
    canvas = draw_ids(5, CANVAS, CPU)
    ours, theirs = dropping.decode(canvas, cache), plain.decode(canvas, whole)
    assert torch.allclose(ours, theirs, atol=model_error(64) * float(theirs.abs().max()))
    branches = [Branch(middle_ids=(50, 51), suffix_ids=(52,)), Branch(middle_ids=(53,), suffix_ids=())]
    options = {"end_ids": frozenset[int](), "banned_ids": list[int]()}
    ranked = [likelihoods(*both, ids[-1], branches, **options) for both in ((dropping, cache), (plain, whole))]
    assert [one.middle for one in ranked[0]] == [
        pytest.approx(one.middle, abs=model_error(64) * 64) for one in ranked[1]
    ]
    written = [
        finished(
            write(
                *both, ids[-1], forced_ids=[], allowed=lambda _ids: None, draft_ids=[], banned_ids=[],
                ends=lambda _id: False, closes=lambda *_ids: False, max_tokens=3, max_passes=3, cancel=unhurried(),
                recorder=None,
            )
        )
        for both in ((dropping, cache), (plain, whole))
    ]  # fmt: skip
    assert written[0].ids == written[1].ids


def rows_of(cache: PromptCache, kind: LayerKind, model: DiffusionModel) -> set[int]:
    layers = zip(cache._layers, model.config.layer_kinds, strict=True)  # pyright: ignore[reportPrivateUsage]
    return {rows.kv.shape[2] for rows, one in layers if one is kind}


def test_typing_drops_tokens_outside_the_sliding_window(models: tuple[DiffusionModel, GraphModel]) -> None:
    store = PromptStore(models[1])
    for length in (30, 31, 33, 38, 39, 45, 60, 61, 62):
        cache = prompt(store, IDS[:length])
        check(models, cache, IDS[:length])
    assert max(rows_of(cache, LayerKind.SLIDING, models[1])) < 62 <= min(rows_of(cache, LayerKind.FULL, models[1]))


@pytest.mark.parametrize(("cut", "num_encoded"), [(2, 2), (EDIT, EDIT), (40, 62)])
def test_edit_within_the_margin_encodes_the_change_and_an_earlier_edit_everything(
    models: tuple[DiffusionModel, GraphModel], cut: int, num_encoded: int
) -> None:
    store = PromptStore(models[1])
    for length in range(1, 63, 1):
        cache = prompt(store, IDS[:length])
        # A captured pass is padded, and needs more room.
        FusedModel.decode(models[1], draw_ids(5, CANVAS, CPU), cache)
    assert rows_of(cache, LayerKind.SLIDING, models[1]) == {sliding_rows(WINDOW, EDIT)}
    edited = [*IDS[: 62 - cut], *IDS[70 : 70 + cut]]
    cache = prompt(store, edited)
    assert store.num_encoded("document") == num_encoded
    check(models, cache, edited)


def test_block_that_joins_can_be_cut_back_to_the_prompt(models: tuple[DiffusionModel, GraphModel]) -> None:
    """For a block of any length, since the prompt is used for ranking afterwards."""
    store = PromptStore(models[1])
    for length in range(1, 41):
        cache = prompt(store, IDS[:length])
    for start in (50, 70, 90):
        models[1].decode_after(torch.tensor([IDS[start : start + 20]]), draw_ids(5, CANVAS, CPU), cache)
    assert cache.length == 100
    cache.truncate(40)
    check(models, cache, IDS[:40])


def test_cutting_back_before_the_kept_tokens_is_refused(models: tuple[DiffusionModel, GraphModel]) -> None:
    store = PromptStore(models[1])
    for length in range(1, 63):
        cache = prompt(store, IDS[:length])
    least = cache.least_length
    assert 62 - 2 * EDIT - CANVAS <= least <= 62 - EDIT
    with pytest.raises(ValueError, match=f"length={least - 1} must be between {least} and 62"):
        cache.truncate(least - 1)
    cache.truncate(0)
    assert cache.least_length == 0
