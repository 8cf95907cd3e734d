"""The count of useful operations, compared with PyTorch's own counter."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, count, cycle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from dgemma_engine.model.config import LayerKind, ModelConfig, RopeConfig
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.tools.training import throughput
from dgemma_engine.tools.training.data.batches import Batch, causal_targets
from dgemma_engine.tools.training.initial import initialise
from dgemma_engine.tools.training.optimization.losses import TokenBatch, infilling_losses
from dgemma_engine.tools.training.optimization.vocabulary import Vocabulary
from dgemma_engine.tools.training.throughput import matrix_rate, useful_flops
from dgemma_kernels import reference
from torch.utils.flop_counter import FlopCounterMode

S, F = LayerKind.SLIDING, LayerKind.FULL
ROWS, PROMPT, SLOT, HEAD, CANVASES = 4, 24, 8, 4, 3


@pytest.fixture
def config() -> ModelConfig:
    return ModelConfig(
        vocab_size=640, hidden_size=64, intermediate_size=96, moe_intermediate_size=48, num_experts=4, top_k_experts=2,
        layer_kinds=(S, F, S), num_attention_heads=2, num_kv_heads={S: 2, F: 1}, head_dim={S: 16, F: 32},
        rope={S: RopeConfig(theta=1e4, rotated_share=1.0), F: RopeConfig(theta=1e6, rotated_share=0.25)},
        sliding_window=64, rms_norm_eps=1e-6, final_logit_softcapping=30.0, max_position_embeddings=128,
        canvas_length=32, pad_token_id=0, eos_token_ids=(1,), bos_token_id=2,
    )  # fmt: skip


def make_batch(*, padding: int = 0) -> Batch:
    def ids(*shape: int) -> Any:
        return np.random.default_rng(0).integers(16, 640, shape).astype(np.int32)

    def full(value: int) -> Any:
        return np.full(ROWS, value, dtype=np.int32)

    prompt_BP = np.pad(ids(ROWS, PROMPT), ((0, 0), (padding, 0)))
    return Batch(
        prompt_BP=prompt_BP, prompt_lengths_B=full(PROMPT),
        slot_BS=ids(ROWS, SLOT), content_lengths_B=full(SLOT), head_BH=ids(ROWS, HEAD), head_lengths_B=full(HEAD),
        given_BS=np.zeros((ROWS, SLOT), np.bool_), causal_N=causal_targets(prompt_BP, ids(ROWS, SLOT), full(SLOT)),
    )  # fmt: skip


@pytest.mark.parametrize("num_judgements", [1, 2])
def test_equals_what_pytorch_counts_in_a_step_without_padding(config: ModelConfig, num_judgements: int) -> None:
    model = DiffusionGemma(config, replace(Ops.reference(), experts=reference.plain.experts_by_group))
    initialise(model, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    with FlopCounterMode(display=False) as counter:
        losses = infilling_losses(
            model, TokenBatch.of(make_batch(), torch.device("cpu")), levels_BR=torch.ones(ROWS, CANVASES),
            num_judgements=num_judgements, generator=generator, vocabulary=Vocabulary.eager(),
        )  # fmt: skip
        (losses.slot + losses.causal).backward()
    counted = useful_flops(config, make_batch(), num_canvases=CANVASES, num_judgements=num_judgements)
    # PyTorch counts masked keys, and the attention of its backward pass with a recomputation.
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.06)


def test_padding_and_unused_experts_are_not_useful(config: ModelConfig) -> None:
    def flops(batch: Batch, config: ModelConfig) -> float:
        return useful_flops(config, batch, num_canvases=CANVASES, num_judgements=1)

    assert flops(make_batch(padding=16), config) == flops(make_batch(), config)
    many = replace(config, num_experts=8)
    assert flops(make_batch(), config) < flops(make_batch(), many) < 1.02 * flops(make_batch(), config)


def test_matrix_rate_is_that_of_the_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = accumulate(cycle((0.5, 0.25, 1.0)))
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(throughput, "_MATRIX_SIZE", {"cpu": 10})
    assert matrix_rate(torch.device("cpu")) == 2 * 10**3 / 0.25


def test_matrix_rate_of_a_slow_device_takes_few_products(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count(step=3.0)
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(throughput, "_MATRIX_SIZE", {"cpu": 10})
    assert matrix_rate(torch.device("cpu")) == 2 * 10**3 / 3.0
    assert next(clock) == 6.0
