"""The model against `transformers`' DiffusionGemma on small random checkpoints, equal up to rounding."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint.loader import load_model
from dgemma_engine.model import attention_masks
from dgemma_engine.model.diffusion_model import ModelDefaults
from dgemma_engine.model.graph_kv import GraphKV
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rounding import model_error
from tests.transformers_versions import cache_name

pytestmark = pytest.mark.numerical

SLIDING, FULL = "sliding_attention", "full_attention"
# Hidden states and logits are of order 1.
TOLERANCE = model_error(64)
# Share of the largest value, between two ways to compute one result.
CLOSE = model_error(64)
WINDOW = 8
CPU = torch.device("cpu")

SHAPES: dict[str, dict[str, Any]] = {
    "mixed layers": {"layer_types": [SLIDING, SLIDING, FULL, SLIDING, FULL]},
    "full layers only": {"layer_types": [FULL, FULL]},
    "one kv head": {"num_key_value_heads": 1, "num_global_key_value_heads": 1},
    "many kv heads": {"num_key_value_heads": 4, "num_global_key_value_heads": 4, "num_attention_heads": 8},
    "kv heads of full layers by default": {"num_global_key_value_heads": None},
    "equal layer scalars": {"equal_scalars": True},
    "window of two": {"sliding_window": 2},
    "every expert": {"num_experts": 3, "top_k_experts": 3},
    "many experts": {"num_experts": 16, "top_k_experts": 1},
    "wide full head": {"head_dim": 8, "global_head_dim": 48},
}


def load(folder: Path) -> DiffusionGemma:
    return load_model(folder, Ops.reference(), device=CPU, dtype=torch.float32)


def empty_cache(model: DiffusionGemma) -> PromptCache:
    return PromptCache(model.config, capacity=4, dtype=model.dtype, device=CPU)


def draw_ids(seed: int, length: int) -> torch.Tensor:
    return torch.randint(0, 320, (1, length), generator=torch.Generator().manual_seed(seed))


def check(folder: Path, reference: Any, *, prompt_length: int, canvas_length: int) -> None:
    model = load(folder)
    prompt, canvas = draw_ids(1, prompt_length), draw_ids(2, canvas_length)
    earlier_logits = torch.randn(1, canvas_length, 320, generator=torch.Generator().manual_seed(3)) * 3
    cache = empty_cache(model)
    with torch.no_grad():
        theirs = reference.model.encoder(input_ids=prompt)
        kept = getattr(theirs, cache_name())
        ours = model.encode(prompt, cache)
        assert (ours - theirs.last_hidden_state).abs().max() < TOLERANCE, "encoder hidden states"
        check_cache(model, cache, kept)
        for signal in (None, earlier_logits):
            expected = reference(
                **{cache_name(): kept}, decoder_input_ids=canvas, self_conditioning_logits=signal
            ).logits
            soft = None if signal is None else model.soft_embeddings(signal.softmax(-1))
            logits = model.logits(model.decode(canvas, cache, soft_BLD=soft))
            assert expected.std() > 0.5, "the reference must not be near constant"
            assert (logits - expected).abs().max() < TOLERANCE, f"logits, self-conditioning {signal is not None}"
        check_cache(model, cache, kept)


def check_cache(model: DiffusionGemma, cache: PromptCache, theirs: Any) -> None:
    """Reads every layer back through an empty canvas and compares it with the reference's cache."""
    for layer_idx, layer in enumerate(theirs.layers):
        nothing = layer.keys[:, :, :0]
        keys, values = cache.with_canvas(layer_idx, nothing, nothing, layer.keys.shape[2])
        assert keys.shape == layer.keys.shape
        assert (keys - layer.keys).abs().max() < TOLERANCE
        assert (values - layer.values).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", SHAPES)
def test_both_modes_match_reference(name: str, make_checkpoint: Callable[..., Any]) -> None:
    checkpoint = make_checkpoint(seed=len(name), **SHAPES[name])
    check(checkpoint.folder, checkpoint.reference, prompt_length=23, canvas_length=16)


@pytest.mark.parametrize("prompt_length", [1, 7, 8, 9, 63, 300])
@pytest.mark.parametrize("canvas_length", [1, 16, 256])
def test_lengths_match_reference(prompt_length: int, canvas_length: int, lengths_checkpoint: Any) -> None:
    check(
        lengths_checkpoint.folder,
        lengths_checkpoint.reference,
        prompt_length=prompt_length,
        canvas_length=canvas_length,
    )


@pytest.fixture(scope="module")
def lengths_checkpoint(make_checkpoint: Callable[..., Any]) -> Any:
    return make_checkpoint(seed=5, layer_types=[SLIDING, FULL, SLIDING, FULL], canvas_length=256)


def test_encode_in_pieces_equals_encode_at_once(lengths_checkpoint: Any) -> None:
    model = load(lengths_checkpoint.folder)
    prompt, canvas = draw_ids(4, 40), draw_ids(5, 9)
    whole, pieces = empty_cache(model), empty_cache(model)
    with torch.no_grad():
        model.encode(prompt, whole)
        for part in prompt.split([1, 17, 2, 20], dim=1):
            model.encode(part, pieces)
        difference = model.decode(canvas, whole) - model.decode(canvas, pieces)
    assert difference.abs().max() < TOLERANCE


@pytest.mark.parametrize("layer_types", [[SLIDING, FULL, SLIDING, FULL], [FULL]])
def test_prefill_stores_what_encode_stores(layer_types: list[str], make_checkpoint: Callable[..., Any]) -> None:
    model = load(make_checkpoint(seed=6, layer_types=layer_types).folder)
    prompt, canvas = draw_ids(4, 40), draw_ids(5, 9)
    encoded, prefilled = empty_cache(model), empty_cache(model)
    with torch.no_grad():
        ModelDefaults.prefill(model, prompt, encoded)
        for part in prompt.split([15, 25], dim=1):
            model.prefill(part, prefilled)
        assert prefilled.length == encoded.length == 40
        difference = model.decode(canvas, encoded) - model.decode(canvas, prefilled)
    assert difference.abs().max() < TOLERANCE


def test_truncated_cache_drops_the_tail(lengths_checkpoint: Any) -> None:
    model = load(lengths_checkpoint.folder)
    prompt, canvas = draw_ids(6, 40), draw_ids(7, 9)
    fresh, reused = empty_cache(model), empty_cache(model)
    with torch.no_grad():
        model.encode(prompt[:, :20], fresh)
        model.encode(prompt, reused)
        model.decode(canvas, reused)
        reused.truncate(20)
        difference = model.decode(canvas, fresh) - model.decode(canvas, reused)
    assert difference.abs().max() < TOLERANCE


def test_truncate_beyond_the_prompt_is_refused(lengths_checkpoint: Any) -> None:
    cache = empty_cache(load(lengths_checkpoint.folder))
    with pytest.raises(ValueError, match="length=1 must be between 0 and 0"):
        cache.truncate(1)


def test_rows_do_not_attend_to_each_other(lengths_checkpoint: Any) -> None:
    model = load(lengths_checkpoint.folder)
    prompts = torch.cat((draw_ids(8, 12), draw_ids(9, 12)))
    canvases = torch.cat((draw_ids(10, 6), draw_ids(11, 6)))
    together = GraphKV()
    with torch.no_grad():
        model.encode(prompts, together)
        logits = model.decode(canvases, together)
        for row in range(2):
            alone = empty_cache(model)
            model.encode(prompts[row : row + 1], alone)
            difference = logits[row] - model.decode(canvases[row : row + 1], alone)[0]
            assert difference.abs().max() < TOLERANCE


def test_causal_states_do_not_depend_on_later_tokens(lengths_checkpoint: Any) -> None:
    model = load(lengths_checkpoint.folder)
    prompt = draw_ids(12, 30)
    changed = prompt.clone()
    changed[0, 20] = (changed[0, 20] + 1) % 320
    with torch.no_grad():
        first = model.encode(prompt, empty_cache(model))
        second = model.encode(changed, empty_cache(model))
    # An expert that gets one token more may sum its products in another order.
    assert (first[:, :20] - second[:, :20]).abs().max() < TOLERANCE
    assert not torch.allclose(first[:, 20:], second[:, 20:])


@pytest.fixture(scope="module")
def small_model(make_checkpoint: Callable[..., Any]) -> DiffusionGemma:
    """Chooses every expert: a rounding error that swaps two experts of equal weight is not a fault."""
    layers = [SLIDING, FULL, SLIDING, FULL]
    options = {"layer_types": layers, "sliding_window": WINDOW, "num_experts": 3, "top_k_experts": 3}
    return load(make_checkpoint(seed=15, **options).folder)


@pytest.fixture(scope="module")
def exact_model(small_model: DiffusionGemma) -> DiffusionGemma:
    """In float64, so that Hypothesis finds no input whose rounding errors look like a fault."""
    return copy.deepcopy(small_model).double()


def check_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < CLOSE * theirs.abs().max()


def check_same_cache(model: DiffusionGemma, ours: PromptCache, theirs: PromptCache) -> None:
    assert ours.length == theirs.length
    for layer_idx, kind in enumerate(model.config.layer_kinds):
        nothing = torch.empty(1, model.config.num_kv_heads[kind], 0, model.config.head_dim[kind], dtype=model.dtype)
        pairs = (cache.with_canvas(layer_idx, nothing, nothing, ours.length) for cache in (ours, theirs))
        for first, second in zip(*pairs, strict=True):
            check_close(first, second)


@torch.no_grad()
def check_decode_after(
    model: DiffusionGemma, prompt_length: int, block_length: int, row_lengths: list[int], *, conditioned: bool
) -> None:
    """Compares with the two passes of `ModelDefaults`; rows are packed into one canvas."""
    prompt, block, num_canvas = draw_ids(20, prompt_length), draw_ids(21, block_length), sum(row_lengths)
    canvas, signal = (
        draw_ids(22, num_canvas),
        torch.randn(1, num_canvas, 320, generator=torch.Generator().manual_seed(23)),
    )
    end = prompt_length + block_length
    options: dict[str, Any] = {}
    if conditioned:
        options["soft_BLD"] = model.soft_embeddings((signal * 3).softmax(-1))
    if len(row_lengths) > 1:
        row_L = torch.repeat_interleave(torch.arange(len(row_lengths)), torch.tensor(row_lengths))
        options["positions_BL"] = torch.cat([torch.arange(end, end + length) for length in row_lengths])[None]
        options["attention_masks"] = attention_masks.packed(
            row_L, num_past=end, sliding_window=model.config.sliding_window
        )
    at_once, in_turn = empty_cache(model), empty_cache(model)
    if prompt_length:
        model.encode(prompt, at_once)
        model.encode(prompt, in_turn)
    hidden = model.decode_after(block, canvas, at_once, **options)
    check_close(hidden, ModelDefaults.decode_after(model, block, canvas, in_turn, **options))
    check_same_cache(model, at_once, in_turn)
    check_close(model.decode(canvas, at_once), model.decode(canvas, in_turn))


@pytest.mark.parametrize("prompt_length", [0, 1, WINDOW - 2, WINDOW - 1, WINDOW, 40])
@pytest.mark.parametrize("block_length", [1, WINDOW - 1, 24])
@pytest.mark.parametrize("row_lengths", [[9], [1, 12, 4]])
@pytest.mark.parametrize("conditioned", [False, True])
def test_decode_after_equals_encode_then_decode(
    small_model: DiffusionGemma, prompt_length: int, block_length: int, row_lengths: list[int], conditioned: bool
) -> None:
    check_decode_after(small_model, prompt_length, block_length, row_lengths, conditioned=conditioned)


@settings(max_examples=25, deadline=None)
@given(
    prompt_length=st.integers(0, 30),
    block_length=st.integers(1, 20),
    row_lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    conditioned=st.booleans(),
)
def test_decode_after_of_any_lengths(
    exact_model: DiffusionGemma, prompt_length: int, block_length: int, row_lengths: list[int], conditioned: bool
) -> None:
    check_decode_after(exact_model, prompt_length, block_length, row_lengths, conditioned=conditioned)


@pytest.mark.parametrize("name", SHAPES)
def test_decode_after_of_any_shape(name: str, make_checkpoint: Callable[..., Any]) -> None:
    model = load(make_checkpoint(seed=len(name), **SHAPES[name]).folder).double()
    check_decode_after(model, 23, 11, [5, 6], conditioned=True)


def test_decode_after_keeps_rows_of_a_batch_apart(small_model: DiffusionGemma) -> None:
    prompts, blocks, canvases = (torch.cat((draw_ids(i, 12), draw_ids(i + 1, 12))) for i in (24, 26, 28))
    at_once, in_turn = GraphKV(), GraphKV()
    with torch.no_grad():
        small_model.encode(prompts, at_once)
        small_model.encode(prompts, in_turn)
        hidden = small_model.decode_after(blocks, canvases, at_once)
        small_model.encode(blocks, in_turn)
        check_close(hidden, small_model.decode(canvases, in_turn))
        assert at_once.length == in_turn.length == 24
        check_close(small_model.decode(prompts, at_once), small_model.decode(prompts, in_turn))


def test_decode_after_agrees_in_bfloat16(small_model: DiffusionGemma) -> None:
    """Compared loosely: sums of 16-bit numbers depend on how many tokens a matrix product is given at once."""
    model = copy.deepcopy(small_model).bfloat16()
    prompt, block, canvas = draw_ids(30, 40), draw_ids(31, 24), draw_ids(32, 64)
    at_once, in_turn = empty_cache(model), empty_cache(model)
    with torch.no_grad():
        model.encode(prompt, at_once)
        model.encode(prompt, in_turn)
        first = model.logits(model.decode_after(block, canvas, at_once)).argmax(-1)
        model.encode(block, in_turn)
        second = model.logits(model.decode(canvas, in_turn)).argmax(-1)
    assert (first == second).float().mean() > 0.9


@pytest.mark.parametrize("prompt_length", [0, 1, WINDOW - 1, 40])
def test_encode_token_by_token_equals_encode_at_once(small_model: DiffusionGemma, prompt_length: int) -> None:
    ids = draw_ids(33, prompt_length + 12)
    whole, single = empty_cache(small_model), empty_cache(small_model)
    with torch.no_grad():
        expected = small_model.encode(ids, whole)
        if prompt_length:
            small_model.encode(ids[:, :prompt_length], single)
        steps = [small_model.encode(ids[:, i : i + 1], single) for i in range(prompt_length, ids.shape[1])]
    check_close(torch.cat(steps, dim=1), expected[:, prompt_length:])
    check_same_cache(small_model, single, whole)


def test_causal_mode_reads_no_key_outside_the_window(make_checkpoint: Callable[..., Any]) -> None:
    read: list[tuple[int, bool]] = []

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        read.append((k.shape[2], mask is not None))
        return Ops.reference().attention(q, k, v, mask)

    folder = make_checkpoint(seed=16, layer_types=[SLIDING, FULL], sliding_window=WINDOW).folder
    model = load_model(folder, replace(Ops.reference(), attention=attention), device=CPU, dtype=torch.float32)
    cache = empty_cache(model)
    with torch.no_grad():
        model.encode(draw_ids(34, 50), cache)
        model.encode(draw_ids(35, 1), cache)
        model.encode(draw_ids(36, 3), cache)
    assert read == [(50, True), (50, True), (WINDOW, False), (51, False), (WINDOW - 1 + 3, True), (54, True)]


def test_several_tokens_without_a_mask_are_refused(small_model: DiffusionGemma) -> None:
    with pytest.raises(AssertionError, match="need a mask"):
        small_model.encode(draw_ids(37, 2), empty_cache(small_model), attention_masks=attention_masks.ALL_VISIBLE)


def test_embedding_is_the_soft_embedding_of_a_certain_token(small_model: DiffusionGemma) -> None:
    ids = draw_ids(38, 9)
    with torch.no_grad():
        certain = torch.nn.functional.one_hot(ids, 320).float()
        check_close(small_model.embed(ids), small_model.soft_embeddings(certain))


def test_gradients_reach_every_parameter(lengths_checkpoint: Any) -> None:
    model = load(lengths_checkpoint.folder).requires_grad_(requires_grad=True)
    cache = GraphKV()
    hidden = model.encode(draw_ids(13, 30), cache)
    soft = model.soft_embeddings(torch.softmax(torch.randn(1, 8, 320), -1))
    logits = model.logits(model.decode(draw_ids(14, 8), cache, soft_BLD=soft))
    (logits.square().mean() + hidden.square().mean()).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []
