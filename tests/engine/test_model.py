"""The model against `transformers`' DiffusionGemma on random small checkpoints: nothing may differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.cache import GraphKV, PromptCache
from dgemma_engine.model import DiffusionGemma
from dgemma_engine.ops import Ops
from dgemma_engine.weights import load_model

SLIDING, FULL = "sliding_attention", "full_attention"
TOLERANCE = 1e-4
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
    return PromptCache(model.config, capacity=4, dtype=torch.float32, device=CPU)


def draw_ids(seed: int, length: int) -> torch.Tensor:
    return torch.randint(0, 320, (1, length), generator=torch.Generator().manual_seed(seed))


def check(folder: Path, reference: Any, *, prompt_length: int, canvas_length: int) -> None:
    model = load(folder)
    prompt, canvas = draw_ids(1, prompt_length), draw_ids(2, canvas_length)
    believed = torch.randn(1, canvas_length, 320, generator=torch.Generator().manual_seed(3)) * 3
    cache = empty_cache(model)
    with torch.no_grad():
        theirs = reference.model.encoder(input_ids=prompt)
        ours = model.encode(prompt, cache)
        assert (ours - theirs.last_hidden_state).abs().max() < TOLERANCE, "encoder hidden states"
        check_cache(model, cache, theirs.past_key_values)
        for signal in (None, believed):
            expected = reference(
                past_key_values=theirs.past_key_values, decoder_input_ids=canvas, self_conditioning_logits=signal
            ).logits
            soft = None if signal is None else model.soft_embeddings(signal.softmax(-1))
            logits = model.logits(model.decode(canvas, cache, soft_BLD=soft))
            assert expected.std() > 0.5, "the reference must say something"
            assert (logits - expected).abs().max() < TOLERANCE, f"logits, self-conditioning {signal is not None}"
        check_cache(model, cache, theirs.past_key_values)


def check_cache(model: DiffusionGemma, cache: PromptCache, theirs: Any) -> None:
    """Reads every layer back through an empty canvas and compares what the reference kept of it."""
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
        model.encode(prompt, encoded)
        for part in prompt.split([15, 25], dim=1):
            model.prefill(part, prefilled)
        assert prefilled.length == encoded.length == 40
        difference = model.decode(canvas, encoded) - model.decode(canvas, prefilled)
    assert difference.abs().max() < TOLERANCE


def test_truncated_cache_forgets_the_tail(lengths_checkpoint: Any) -> None:
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


def test_rows_do_not_see_each_other(lengths_checkpoint: Any) -> None:
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


def test_causal_probabilities_do_not_look_ahead(lengths_checkpoint: Any) -> None:
    model = load(lengths_checkpoint.folder)
    prompt = draw_ids(12, 30)
    changed = prompt.clone()
    changed[0, 20] = (changed[0, 20] + 1) % 320
    with torch.no_grad():
        first = model.encode(prompt, empty_cache(model))
        second = model.encode(changed, empty_cache(model))
    assert torch.equal(first[:, :20], second[:, :20])
    assert not torch.allclose(first[:, 20:], second[:, 20:])


def test_gradients_reach_every_parameter(lengths_checkpoint: Any) -> None:
    model = load(lengths_checkpoint.folder).requires_grad_(requires_grad=True)
    cache = GraphKV()
    hidden = model.encode(draw_ids(13, 30), cache)
    soft = model.soft_embeddings(torch.softmax(torch.randn(1, 8, 320), -1))
    logits = model.logits(model.decode(draw_ids(14, 8), cache, soft_BLD=soft))
    (logits.square().mean() + hidden.square().mean()).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []
