"""Short causal passes, replayed as a graph would be, against the plain model's: same hidden states, same prompt."""

from __future__ import annotations

import pytest
import torch
from dgemma_engine.backends.cuda.graph_model import GraphModel
from dgemma_engine.backends.cuda.graphs import Graphs, repeat
from dgemma_engine.backends.cuda.model import FusedModel
from dgemma_engine.model import attention_masks
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops

from tests.engine.fused_models import WINDOW, draw_ids, everything, load, write
from tests.rounding import model_error

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[DiffusionModel, GraphModel]:
    folder = write(tmp_path_factory.mktemp("model"))
    fused = load(folder, Ops.fused_reference(), torch.float32, CPU)
    assert isinstance(fused, FusedModel)
    return load(folder, Ops.reference(), torch.float32, CPU), GraphModel(fused, Graphs(repeat))


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return torch.allclose(ours, theirs, atol=model_error(64) * float(theirs.abs().max()))


def test_outputs_are_those_of_the_plain_model(models: tuple[DiffusionModel, GraphModel]) -> None:
    expected = everything(models[0], CPU)
    for _repetition in range(3):
        for key, ours in everything(models[1], CPU).items():
            assert close(ours, expected[key]), key


def run(model: DiffusionModel, cache: PromptCache, pieces: list[int]) -> list[torch.Tensor]:
    """Does what typing does: appends pieces to the prompt and ranks branches after each."""
    said: list[torch.Tensor] = []
    with torch.inference_mode():
        for number, length in enumerate(pieces):
            model.prefill(draw_ids(number, length, CPU), cache)
            row_T = torch.tensor([0] * 4 + [1] * 3)
            position_T = torch.tensor([0, 1, 2, 3, 0, 1, 2]) + cache.length - 1
            branches = attention_masks.branches(
                row_T, position_T, num_past=cache.length, sliding_window=WINDOW, hidden_from=cache.length - 1
            )
            kept = cache.length
            ids = draw_ids(100 + number, 7, CPU)
            said.append(model.encode(ids, cache, positions_BT=position_T[None], attention_masks=branches))
            cache.truncate(kept)
            said.append(model.encode(draw_ids(200 + number, 5, CPU), cache))
            cache.truncate(kept)
    return said


def empty(model: DiffusionModel, capacity: int) -> PromptCache:
    return PromptCache(model.config, capacity=capacity, dtype=torch.float32, device=CPU)


def test_typing_replays_what_was_captured(models: tuple[DiffusionModel, GraphModel]) -> None:
    pieces = [130, 1, 1, 5, 6, 1, 5, 20, 23, 24, 3]
    expected = run(models[0], empty(models[0], 8), pieces)
    model = GraphModel(models[1], Graphs(repeat))
    cache = empty(model, 400)
    for _repetition in range(2):
        cache.truncate(0)
        for ours, theirs in zip(run(model, cache, pieces), expected, strict=True):
            assert close(ours, theirs)
    # Lengths that are padded to the same one share a graph: 1, 3, 6 and 24 to join, 6 and 8 to rank.
    assert model.graphs.num_captured == 6


def test_hidden_states_outlive_the_next_pass(models: tuple[DiffusionModel, GraphModel]) -> None:
    cache = empty(models[1], 100)
    first = models[1].encode(draw_ids(1, 5, CPU), cache)
    kept = first.clone()
    models[1].encode(draw_ids(2, 5, CPU), cache)
    assert torch.equal(first, kept)
