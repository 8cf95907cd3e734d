"""Decoders of masked diffusion against `transformers` with the same weights and a mask that hides nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.masked import model as masked_model
from dgemma_engine.families.masked.model import MaskedModel
from dgemma_engine.families.masked.weights import load_masked
from dgemma_engine.model import attention_masks as masks
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from torch import Tensor

from tests.masked_checkpoints import KINDS, MASK, MaskedCheckpoint, make_masked

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
SHAPES: dict[str, dict[str, Any]] = {
    "as published": {},
    "tied": {"tie_word_embeddings": True},
    "own head": {"tie_word_embeddings": False},
    "other rotation": {"rope_theta": 1e6, "rms_norm_eps": 1e-3},
}


def shapes() -> list[Any]:
    pairs = [(kind, shape) for kind in KINDS for shape in SHAPES if (kind, shape) != ("llada", "tied")]
    return [pytest.param(pair, id=", ".join(pair)) for pair in pairs]


@pytest.fixture(scope="module", params=shapes())
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MaskedCheckpoint:
    kind, shape = request.param
    return make_masked(tmp_path_factory.mktemp("masked"), kind, **SHAPES[shape])


@pytest.fixture(scope="module")
def model(checkpoint: MaskedCheckpoint) -> MaskedModel:
    return load(checkpoint.folder)


def load(folder: Path) -> MaskedModel:
    return load_masked(read_facts(folder), Ops.reference(), device=CPU, dtype=torch.float32)


def prompt_cache(model: MaskedModel, ids: list[int]) -> PromptCache:
    cache = PromptCache(model.config, capacity=4, dtype=model.dtype, device=CPU)
    model.prefill(torch.tensor([ids]), cache)
    return cache


def draw_ids(seed: int, length: int) -> list[int]:
    return torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_logits_are_those_of_a_reference_that_sees_everything(model: MaskedModel, checkpoint: MaskedCheckpoint) -> None:
    """Prompt, masks and suffix: state i scores position i, whether or not the states of the layers are shifted."""
    prompt, canvas = draw_ids(1, 13), [*draw_ids(2, 2), MASK, MASK, *draw_ids(3, 9)]
    cache = prompt_cache(model, prompt[:5])
    model.prefill(torch.tensor([prompt[5:]]), cache)
    logits = model.logits(model.decode(torch.tensor([canvas]), cache))[0]
    assert_close(logits, checkpoint.logits([*prompt, *canvas])[len(prompt) :])
    assert cache.length == len(prompt)


@pytest.mark.parametrize("most_together", [1, 24, 2_048])
@torch.inference_mode()
def test_packed_rows_are_windows_that_run_alone(
    model: MaskedModel, checkpoint: MaskedCheckpoint, monkeypatch: pytest.MonkeyPatch, most_together: int
) -> None:
    monkeypatch.setattr(masked_model, "MOST_TOGETHER", most_together)
    prompt, rows = draw_ids(1, 7), [draw_ids(2, 4), [MASK] * 6, [*draw_ids(3, 1), MASK]]
    row_L = torch.tensor([index for index, row in enumerate(rows) for _ in row])
    packed = masks.packed(row_L, num_past=7, sliding_window=model.config.sliding_window)
    positions = torch.cat([7 + torch.arange(len(row)) for row in rows])[None]
    together = model.decode(
        torch.tensor([[token for row in rows for token in row]]),
        prompt_cache(model, prompt),
        positions_BL=positions,
        attention_masks=packed,
    )
    alone = torch.cat([checkpoint.logits([*prompt, *row])[7:] for row in rows])
    assert_close(model.logits(together)[0], alone)


@torch.inference_mode()
def test_prompt_keeps_ids_and_no_keys(model: MaskedModel, checkpoint: MaskedCheckpoint) -> None:
    cache, canvas = prompt_cache(model, [5, 6, 7, 8]), [MASK, 9]
    assert cache.num_bytes == 0
    cache.truncate(2)
    hidden = model.decode_after(torch.tensor([[70, 71]]), torch.tensor([canvas]), cache)
    assert cache.ids().tolist() == [[5, 6, 70, 71]]
    assert_close(model.logits(hidden)[0], checkpoint.logits([5, 6, 70, 71, *canvas])[4:])


def test_there_is_no_causal_mode(model: MaskedModel) -> None:
    assert not model.has_causal_mode
    with pytest.raises(AssertionError, match="no causal mode"):
        model.encode(torch.tensor([[5]]), prompt_cache(model, [5]))
