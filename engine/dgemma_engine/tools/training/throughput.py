"""How much useful arithmetic a training step does, and how much the device could do.

Useful is what a perfect implementation needs: chosen experts only, real tokens only, visible keys only. Padding,
experts that run on tokens they were not chosen for, and recomputation count as waste. Knows shapes; runs nothing but a
matrix product. Shape legend: see `tools/training/data/batches.py`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from dgemma_engine.model.config import LayerKind, ModelConfig
from dgemma_engine.tools.training.data.batches import Batch

# On a processor without bfloat16 instructions a product of 1,024 takes two seconds.
_MATRIX_SIZE = {"cpu": 512, "cuda": 8_192}
_MATRIX_ROUNDS = {"cpu": 20, "cuda": 50}
_MATRIX_LIMIT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pass:
    """Tokens of one pass through the layers: how many, and how many keys each layer kind shows to one on average."""

    tokens: float
    keys: dict[LayerKind, float]
    vocabulary_rows: float


def useful_flops(config: ModelConfig, batch: Batch, *, num_canvases: int, num_judgements: int) -> float:
    """Returns the floating-point operations (a multiply-add is two) that one training step cannot do without.

    Args:
        config: dimensions.
        batch: holes of the step.
        num_canvases: R.
        num_judgements: 2 when the canvases are judged once more without gradient.
    """
    num_rows, slot_size = batch.slot_BS.shape
    prompt = float(batch.prompt_lengths_B.mean())
    encoded = prompt + float(batch.content_lengths_B.mean())
    canvas = slot_size + float(batch.head_lengths_B.mean())
    window = config.sliding_window
    encoder = _Pass(
        tokens=num_rows * encoded,
        keys={LayerKind.FULL: encoded / 2, LayerKind.SLIDING: min(encoded / 2, window)},
        vocabulary_rows=num_rows * encoded,
    )
    decoder = _Pass(
        tokens=num_rows * num_canvases * canvas,
        keys={LayerKind.FULL: prompt + canvas, LayerKind.SLIDING: min(prompt, window - 1) + canvas},
        vocabulary_rows=num_rows * num_canvases * slot_size,
    )
    # Forward once, backward twice. A judgement without gradient runs forward, and its distribution is a second product.
    flops = 3 * (_forward_flops(config, encoder) + _forward_flops(config, decoder))
    if num_judgements > 1:
        vocabulary = 2 * config.vocab_size * config.hidden_size
        num_predicted = 2 * decoder.tokens - decoder.vocabulary_rows
        flops += (num_judgements - 1) * (_forward_flops(config, decoder) + vocabulary * num_predicted)
        flops += 3 * 2 * 3 * config.hidden_size * config.intermediate_size * decoder.tokens
    return flops


def matrix_rate(device: torch.device) -> float:
    """Returns the bfloat16 matrix product rate that `device` reaches, in floating-point operations per second.

    The best of some rounds of one large square product, with the threads torch is set to; no round starts after a
    second.
    """
    size = _MATRIX_SIZE[device.type]
    left = torch.randn(size, size, device=device).bfloat16()
    right = torch.randn(size, size, device=device).bfloat16()
    best_s, spent_s = float("inf"), 0.0
    for _ in range(_MATRIX_ROUNDS[device.type]):
        if spent_s >= _MATRIX_LIMIT_S:
            break
        _wait(device)
        started = time.perf_counter()
        _ = left @ right
        _wait(device)
        taken_s = time.perf_counter() - started
        best_s, spent_s = min(best_s, taken_s), spent_s + taken_s
    return 2.0 * size**3 / best_s


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _forward_flops(config: ModelConfig, work: _Pass) -> float:
    hidden = config.hidden_size
    feed_forward = 3 * hidden * (config.intermediate_size + config.top_k_experts * config.moe_intermediate_size)
    per_token = 0.0
    for kind in config.layer_kinds:
        head, kv_heads = config.head_dim[kind], config.num_kv_heads[kind]
        num_inputs = config.num_attention_heads + kv_heads * (2 if kind is LayerKind.SLIDING else 1)
        projections = hidden * head * (num_inputs + config.num_attention_heads)
        attention = 2 * config.num_attention_heads * head * work.keys[kind]
        per_token += 2 * (projections + attention + feed_forward + hidden * config.num_experts)
    return work.tokens * per_token + work.vocabulary_rows * 2 * config.vocab_size * hidden
