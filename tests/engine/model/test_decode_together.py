"""Canvases with separate prompts in one pass: each gives the output that it gives alone, in every model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dgemma_engine.backends.cpu.model import CpuModel
from dgemma_engine.backends.cuda.graph_model import GraphModel
from dgemma_engine.backends.cuda.graphs import Graphs, repeat
from dgemma_engine.backends.cuda.model import FusedModel
from dgemma_engine.model.attention_masks import ALL_VISIBLE
from dgemma_engine.model.canvas_pass import CanvasPass
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma

from tests.engine.fused_models import draw_ids, load, packed_rows, write
from tests.rounding import model_error

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")


def plain(folder: Path) -> DiffusionModel:
    return load(folder, Ops.reference(), torch.float32, CPU)


def packed(folder: Path) -> DiffusionModel:
    model = plain(folder)
    assert isinstance(model, DiffusionGemma)
    return CpuModel(model)


def graphed(folder: Path) -> DiffusionModel:
    model = load(folder, Ops.fused_reference(), torch.float32, CPU)
    assert isinstance(model, FusedModel)
    return GraphModel(model, Graphs(repeat))


MODELS = [plain, packed, graphed]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("model"))


def passes(model: DiffusionModel) -> list[CanvasPass]:
    """Prompts shorter and longer than the window, with and without self-conditioning, one canvas of two rows."""
    made: list[CanvasPass] = []
    for number, (num_past, num_canvas, has_soft) in enumerate([(21, 7, True), (3, 12, False), (40, 9, True)]):
        cache = PromptCache(model.config, capacity=4, dtype=model.dtype, device=CPU)
        model.prefill(draw_ids(number, num_past, CPU), cache)
        soft = torch.randn(1, num_canvas, 64, generator=torch.Generator().manual_seed(number)) if has_soft else None
        positions, masks = packed_rows(num_past, [4, 5], CPU) if number == 2 else (None, ALL_VISIBLE)
        made.append(
            CanvasPass(
                canvas_1L=draw_ids(10 + number, num_canvas, CPU),
                cache=cache,
                soft_1LD=soft,
                positions_1L=positions,
                attention_masks=masks,
            )
        )
    return made


def alone(model: DiffusionModel, each: CanvasPass) -> torch.Tensor:
    return model.decode(
        each.canvas_1L,
        each.cache,
        soft_BLD=each.soft_1LD,
        positions_BL=each.positions_1L,
        attention_masks=each.attention_masks,
    )


@pytest.mark.parametrize("make", MODELS)
@torch.inference_mode()
def test_each_canvas_gives_the_output_it_gives_alone(folder: Path, make: Callable[[Path], DiffusionModel]) -> None:
    model = make(folder)
    given = passes(model)
    expected = [alone(model, each) for each in given]
    largest = max(float(one.abs().max()) for one in expected)
    # Several orders and numbers, some twice, so that a captured pass is replayed with other prompts.
    for order in ([0, 1, 2], [2, 0, 1], [1, 0], [0, 2], [1, 2], [0, 1, 2]):
        got = model.decode_together([given[index] for index in order])
        for index, ours in zip(order, got, strict=True):
            assert ours.shape == expected[index].shape
            assert torch.allclose(ours, expected[index], atol=model_error(64) * largest), (order, index)


@pytest.mark.parametrize("make", MODELS)
@torch.inference_mode()
def test_prompts_are_left_unchanged(folder: Path, make: Callable[[Path], DiffusionModel]) -> None:
    model = make(folder)
    given = passes(model)
    before = [alone(model, each) for each in given]
    lengths = [each.cache.length for each in given]
    model.decode_together(given)
    assert [each.cache.length for each in given] == lengths
    assert all(torch.equal(alone(model, each), theirs) for each, theirs in zip(given, before, strict=True))


@torch.inference_mode()
def test_states_outlive_the_next_pass(folder: Path) -> None:
    model = graphed(folder)
    given = passes(model)
    first = model.decode_together(given)
    kept = [each.clone() for each in first]
    model.decode_together(given[::-1])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first, kept, strict=True))
