"""A Llama or Qwen2 against `transformers`, with the same weights: both containers, both modes, every entry point."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.families.llama.model import LlamaModel
from dgemma_engine.families.llama.weights import load_llama
from dgemma_engine.model import attention_masks as masks
from dgemma_engine.model.graph_kv import GraphKV
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from torch import Tensor

from tests.llama_checkpoints import LlamaCheckpoint, byte_tokenizer, make_llama, make_qwen2

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
SHAPES: dict[str, tuple[Callable[..., LlamaCheckpoint], dict[str, Any]]] = {
    "tied": (make_llama, {}),
    "own head": (make_llama, {"tie_word_embeddings": False}),
    "one kv head": (make_llama, {"num_key_value_heads": 1}),
    "as many kv heads": (make_llama, {"num_key_value_heads": 4}),
    "wide heads": (make_llama, {"head_dim": 24, "rope_theta": 100_000.0, "rms_norm_eps": 1e-3}),
    "qwen2": (make_qwen2, {}),
    "tied qwen2": (make_qwen2, {"tie_word_embeddings": True, "num_key_value_heads": 4, "rope_theta": 1e6}),
}


@pytest.fixture(scope="module", params=SHAPES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LlamaCheckpoint:
    make, shape = SHAPES[request.param]
    return make(tmp_path_factory.mktemp("llama"), **shape)


@pytest.fixture(scope="module", params=["folder", "gguf"])
def model(request: pytest.FixtureRequest, checkpoint: LlamaCheckpoint) -> LlamaModel:
    return load(getattr(checkpoint, request.param))


def load(path: Path) -> LlamaModel:
    return load_llama(path, Ops.reference(), device=CPU, dtype=torch.float32)


def new_cache(model: LlamaModel) -> PromptCache:
    return PromptCache(model.config, capacity=4, dtype=model.dtype, device=CPU)


def draw_ids(seed: int, length: int) -> Tensor:
    return torch.randint(0, 288, (1, length), generator=torch.Generator().manual_seed(seed))


def reference_logits(checkpoint: LlamaCheckpoint, ids_BT: Tensor, mask: Tensor | None = None, **more: Any) -> Tensor:
    """Logits of `transformers`; `mask` is bool, True where a query attends to a key."""
    additive = None if mask is None else torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    return checkpoint.reference(ids_BT, attention_mask=additive, use_cache=False, **more).logits


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_causal_logits_are_those_of_the_reference(model: LlamaModel, checkpoint: LlamaCheckpoint) -> None:
    ids = draw_ids(1, 33)
    cache = new_cache(model)
    pieces = [model.encode(ids[:, :7], cache)]
    model.prefill(ids[:, 7:20], cache)
    pieces += [model.encode(ids[:, 20:21], cache), model.encode(ids[:, 21:], cache)]
    expected = reference_logits(checkpoint, ids)
    assert cache.length == 33
    assert_close(model.logits(torch.cat(pieces, dim=1)), torch.cat((expected[:, :7], expected[:, 20:]), dim=1))


@torch.inference_mode()
def test_greedy_tokens_are_those_of_the_reference(model: LlamaModel, checkpoint: LlamaCheckpoint) -> None:
    prompt = draw_ids(2, 9)
    expected = checkpoint.reference.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=24, eos_token_id=None
    )[0, 9:].tolist()
    cache, ids, written = new_cache(model), prompt, list[int]()
    for _ in range(24):
        ids = model.logits(model.encode(ids, cache)[:, -1:]).argmax(-1)
        written.append(int(ids))
    assert written == expected


@torch.inference_mode()
def test_canvas_is_seen_in_both_directions_over_a_causal_prompt(model: LlamaModel, checkpoint: LlamaCheckpoint) -> None:
    """State i scores position i: the reference's states from the prompt's last token on, which sees the canvas too."""
    prompt, canvas = draw_ids(3, 11), draw_ids(4, 6)
    cache = new_cache(model)
    model.prefill(prompt, cache)
    logits = model.logits(model.decode(canvas, cache))
    assert cache.length == 11
    ids, mask = torch.cat((prompt, canvas), dim=1), torch.ones(17, 17, dtype=torch.bool).tril()
    mask[10:] = True
    assert_close(logits, reference_logits(checkpoint, ids, mask[None, None])[:, 10:-1])
    assert_close(model.logits(model.decode(canvas, cache)), logits)
    again = model.logits(model.encode(draw_ids(5, 2), cache))
    assert_close(again, reference_logits(checkpoint, torch.cat((prompt, draw_ids(5, 2)), dim=1))[:, 11:])


@torch.inference_mode()
def test_canvas_after_one_token_is_the_reference_with_a_full_mask(
    model: LlamaModel, checkpoint: LlamaCheckpoint
) -> None:
    canvas, cache = draw_ids(5, 12), new_cache(model)
    model.encode(canvas[:, :1], cache)
    full = torch.ones(1, 1, 12, 12, dtype=torch.bool)
    logits = model.logits(model.decode(canvas[:, 1:], cache))
    assert_close(logits, reference_logits(checkpoint, canvas, full)[:, :-1])


@torch.inference_mode()
def test_canvas_without_a_prompt_is_refused(model: LlamaModel) -> None:
    with pytest.raises(AssertionError, match="needs a prompt of at least one token"):
        model.decode(draw_ids(5, 3), new_cache(model))


@torch.inference_mode()
def test_canvas_begins_with_the_last_token_of_a_prompt_that_was_cut_back(model: LlamaModel) -> None:
    prompt, canvas, other = draw_ids(3, 70), draw_ids(4, 6), new_cache(model)
    cache = new_cache(model)
    model.prefill(prompt, cache)
    model.encode(draw_ids(6, 5), cache)
    cache.truncate(70)
    model.prefill(prompt, other)
    assert_close(model.decode(canvas, cache), model.decode(canvas, other))


@torch.inference_mode()
def test_packed_rows_are_those_that_run_alone(model: LlamaModel) -> None:
    cache = new_cache(model)
    model.prefill(draw_ids(6, 10), cache)
    first, second = draw_ids(7, 4), draw_ids(8, 6)
    alone = torch.cat((model.decode(first, cache), model.decode(second, cache)), dim=1)
    row_L = torch.tensor([0] * 4 + [1] * 6)
    positions = (10 + torch.cat((torch.arange(4), torch.arange(6))))[None]
    packed = masks.packed(row_L, num_past=10, sliding_window=model.config.sliding_window)
    together = model.decode(torch.cat((first, second), dim=1), cache, positions_BL=positions, attention_masks=packed)
    assert_close(together, alone)


@torch.inference_mode()
def test_decode_after_is_a_prefill_and_a_decode(model: LlamaModel) -> None:
    prompt, block, canvas = draw_ids(9, 5), draw_ids(10, 3), draw_ids(11, 6)
    cache, other = new_cache(model), new_cache(model)
    for each in (cache, other):
        model.prefill(prompt, each)
    together = model.decode_after(block, canvas, cache)
    model.prefill(block, other)
    assert cache.length == other.length == 8
    assert_close(together, model.decode(canvas, other))
    later = draw_ids(12, 2)
    assert_close(model.encode(later, cache), model.encode(later, other))


@torch.inference_mode()
def test_branches_are_continuations_that_run_alone(model: LlamaModel) -> None:
    prompt, first, second = draw_ids(13, 8), draw_ids(14, 3), draw_ids(15, 2)
    cache = new_cache(model)
    model.prefill(prompt, cache)
    alone: list[Tensor] = []
    for ids in (first, second):
        alone.append(model.encode(torch.cat((prompt[:, -1:], ids), dim=1), truncated(cache, 7)))
        cache.truncate(7)
        model.prefill(prompt[:, -1:], cache)
    row_T, position_T = torch.tensor([0] * 4 + [1] * 3), torch.tensor([7, 8, 9, 10, 7, 8, 9])
    branched = masks.branches(row_T, position_T, num_past=8, sliding_window=model.config.sliding_window, hidden_from=7)
    ids = torch.cat((prompt[:, -1:], first, prompt[:, -1:], second), dim=1)
    together = model.encode(ids, cache, positions_BT=position_T[None], attention_masks=branched)
    assert_close(together, torch.cat(alone, dim=1))


def truncated(cache: PromptCache, length: int) -> PromptCache:
    cache.truncate(length)
    return cache


def test_several_rows_keep_their_gradients(checkpoint: LlamaCheckpoint) -> None:
    """Training: any number of rows, a cache that keeps gradients, and frozen weights beside ones that learn."""
    model = load(checkpoint.folder)
    model.embed_tokens.weight.requires_grad_()
    cache, ids = GraphKV(), torch.cat((draw_ids(16, 9), draw_ids(17, 9)))
    logits = model.logits(model.encode(ids, cache))
    assert_close(logits.detach(), reference_logits(checkpoint, ids).detach())
    model.logits(model.decode(ids[:, :4], cache)).sum().backward()
    assert model.embed_tokens.weight.grad is not None


@torch.inference_mode()
def test_interleaved_rows_of_a_gguf_file_are_reordered(tmp_path: Path) -> None:
    """A file whose rows were left in the other order loads and computes something else: the loss shows it."""
    checkpoint = make_llama(tmp_path, spread=0.3)
    from tests import llama_checkpoints

    ids = torch.tensor([byte_tokenizer().encode("def mean(values):\n    return sum(values) / len(values)\n").ids])
    right = reference_logits(checkpoint, ids)
    ours = load(checkpoint.gguf)
    assert_close(ours.logits(ours.encode(ids, new_cache(ours))), right)
    assert abs(loss(ours, ids) - float(checkpoint.reference(ids, labels=ids).loss)) < 1e-4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llama_checkpoints, "interleaved", lambda weight, _num_heads: weight)
        other = load(llama_checkpoints.write_llama_gguf(tmp_path / "other.gguf", checkpoint.reference))
    assert (other.logits(other.encode(ids, new_cache(other))) - right).abs().max() > 1.0
    assert abs(loss(other, ids) - loss(ours, ids)) > 0.1


def loss(model: LlamaModel, ids_1T: Tensor) -> float:
    """Returns nats per token of a text."""
    logits_TV = model.logits(model.encode(ids_1T, new_cache(model)))[0]
    return float(torch.nn.functional.cross_entropy(logits_TV[:-1], ids_1T[0, 1:]))
