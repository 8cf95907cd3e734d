"""Decoders that attend block by block against `transformers` with the same weights and a mask of blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.masked.block_model import BlockModel
from dgemma_engine.families.masked.weights import load_masked
from dgemma_engine.model import attention_masks as masks
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.prompting.prefix_cache import PromptStore
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel
from torch import Tensor

from tests.masked_checkpoints import BLOCK_KINDS, MASK, MaskedCheckpoint, make_masked

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
SHAPES: dict[str, dict[str, Any]] = {
    "as published": {},
    "tied": {"tie_word_embeddings": True},
    "other rotation": {"rope_theta": 1e6, "rms_norm_eps": 1e-3},
}


@pytest.fixture(scope="module", params=[f"{kind}, {shape}" for kind in BLOCK_KINDS for shape in SHAPES])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MaskedCheckpoint:
    kind, _, shape = request.param.partition(", ")
    return make_masked(tmp_path_factory.mktemp("blocks"), kind, **SHAPES[shape])


@pytest.fixture(scope="module")
def model(checkpoint: MaskedCheckpoint) -> BlockModel:
    return load(checkpoint.folder)


def load(folder: Path) -> BlockModel:
    model = load_masked(read_facts(folder), Ops.reference(), device=CPU, dtype=torch.float32)
    assert isinstance(model, BlockModel)
    return model


def prompt_cache(model: BlockModel, *pieces: list[int]) -> PromptCache:
    cache = PromptCache(model.config, capacity=4, dtype=model.dtype, device=CPU)
    for piece in pieces:
        model.prefill(torch.tensor([piece]), cache)
    return cache


def draw_ids(seed: int, length: int) -> list[int]:
    return torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_prompt", [1, 4, 31, 32, 33, 70])
@torch.inference_mode()
def test_logits_are_those_of_a_reference_that_sees_blocks(
    model: BlockModel, checkpoint: MaskedCheckpoint, num_prompt: int
) -> None:
    """A prompt that ends anywhere in a block, and a canvas of parts of several blocks."""
    prompt, canvas = draw_ids(1, num_prompt), [*draw_ids(2, 2), MASK, MASK, *draw_ids(3, 33), MASK]
    logits = model.logits(model.decode(torch.tensor([canvas]), prompt_cache(model, prompt)))[0]
    assert_close(logits, checkpoint.logits([*prompt, *canvas])[num_prompt:])


@torch.inference_mode()
def test_prompt_in_pieces_is_the_prompt_in_one(model: BlockModel, checkpoint: MaskedCheckpoint) -> None:
    """States of a piece that ends within a block differ from those of the whole block."""
    prompt, canvas = draw_ids(4, 45), [MASK] * 3
    cache = prompt_cache(model, prompt[:1], prompt[1:10], prompt[10:34], prompt[34:])
    assert cache.ids()[0].tolist() == prompt
    theirs = checkpoint.logits([*prompt, *canvas])[45:]
    assert_close(model.logits(model.decode(torch.tensor([canvas]), cache))[0], theirs)
    # Decoding the canvas left the cache unchanged.
    assert_close(model.logits(model.decode(torch.tensor([canvas]), cache))[0], theirs)


@torch.inference_mode()
def test_prompt_cut_back_within_a_block_gives_the_logits_of_the_new_prompt(
    model: BlockModel, checkpoint: MaskedCheckpoint
) -> None:
    """A keystroke does this: tokens that were computed beside others in their block are computed anew."""
    before, after, canvas = draw_ids(5, 60), draw_ids(6, 5), [MASK, MASK]
    store, cancel = PromptStore(model), Cancel(deadline_s=1e9, clock=lambda: 0.0)
    assert finished(store.encoded("d", before, cancel)) is not None
    for kept in (59, 50, 37, 33, 3):
        prompt = before[:kept] + after
        cache = finished(store.encoded("d", prompt, cancel))
        assert cache is not None and store.num_encoded("d") <= len(prompt)
        assert_close(
            model.logits(model.decode(torch.tensor([canvas]), cache))[0],
            checkpoint.logits([*prompt, *canvas])[len(prompt) :],
        )
        finished(store.encoded("d", before, cancel))


@torch.inference_mode()
def test_packed_rows_see_the_prompt_and_themselves(model: BlockModel, checkpoint: MaskedCheckpoint) -> None:
    prompt, rows = draw_ids(1, 39), [draw_ids(2, 4), [MASK] * 6, [*draw_ids(3, 1), MASK]]
    row_L = torch.tensor([index for index, row in enumerate(rows) for _ in row])
    packed = masks.packed(row_L, num_past=39, sliding_window=model.config.sliding_window)
    positions = torch.cat([39 + torch.arange(len(row)) for row in rows])[None]
    together = model.decode(
        torch.tensor([[token for row in rows for token in row]]),
        prompt_cache(model, prompt),
        positions_BL=positions,
        attention_masks=packed,
    )
    alone = torch.cat([checkpoint.logits([*prompt, *row])[39:] for row in rows])
    assert_close(model.logits(together)[0], alone)


@torch.inference_mode()
def test_decode_after_gives_the_logits_of_prompt_block_and_canvas(
    model: BlockModel, checkpoint: MaskedCheckpoint
) -> None:
    prompt, block, canvas = draw_ids(7, 29), draw_ids(8, 6), [MASK, 9]
    cache = prompt_cache(model, prompt)
    hidden = model.decode_after(torch.tensor([block]), torch.tensor([canvas]), cache)
    assert cache.num_prompt == 35 and cache.num_bytes > 0
    assert_close(model.logits(hidden)[0], checkpoint.logits([*prompt, *block, *canvas])[35:])


def test_there_is_no_causal_mode(model: BlockModel) -> None:
    assert not model.has_causal_mode
    with pytest.raises(AssertionError, match="no causal mode"):
        model.encode(torch.tensor([[5]]), prompt_cache(model, [5]))
