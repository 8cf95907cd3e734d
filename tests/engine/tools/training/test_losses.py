"""The training pass equals the engine's pass: same prompts, positions and masks, with padding and more canvases."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from dgemma_engine.model.config import LayerKind, ModelConfig, RopeConfig
from dgemma_engine.model.graph_kv import GraphKV
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.tools.corpus import bpe
from dgemma_engine.tools.training.data.batches import Batch, causal_targets
from dgemma_engine.tools.training.data.corruption import noise_levels
from dgemma_engine.tools.training.data.training_masks import canvas_layout, encoder_layout
from dgemma_engine.tools.training.initial import initialise
from dgemma_engine.tools.training.optimization.losses import TokenBatch, infilling_losses, slot_weights
from dgemma_engine.tools.training.optimization.routing_balance import RoutingBalance
from dgemma_engine.tools.training.optimization.vocabulary import Vocabulary

from tests.rounding import model_error

pytestmark = pytest.mark.numerical

S, F = LayerKind.SLIDING, LayerKind.FULL
PROMPT, SLOT, HEAD = 24, 8, 4


@pytest.fixture
def config() -> ModelConfig:
    return ModelConfig(
        vocab_size=300, hidden_size=32, intermediate_size=32, moe_intermediate_size=16, num_experts=4, top_k_experts=2,
        layer_kinds=(S, F, S), num_attention_heads=4, num_kv_heads={S: 2, F: 1}, head_dim={S: 8, F: 16},
        rope={S: RopeConfig(theta=1e4, rotated_share=1.0), F: RopeConfig(theta=1e6, rotated_share=0.25)},
        sliding_window=10, rms_norm_eps=1e-6, final_logit_softcapping=30.0, max_position_embeddings=128,
        canvas_length=32, pad_token_id=0, eos_token_ids=(1,), bos_token_id=2,
    )  # fmt: skip


def make_batch(lengths: list[int], head_lengths: list[int], content: list[int], seed: int = 0) -> Batch:
    random = Random(seed)

    def ids(count: int) -> list[int]:
        return [random.randrange(16, 300) for _ in range(count)]

    def array(values: Any) -> Any:
        return np.array(values, dtype=np.int32)

    prompt_BP = array([[bpe.PAD] * (PROMPT - n) + ids(n) for n in lengths])
    slot_BS = array([(ids(n - 1) + [bpe.FILL] * SLOT)[:SLOT] for n in content])
    return Batch(
        prompt_BP=prompt_BP,
        prompt_lengths_B=array(lengths),
        slot_BS=slot_BS,
        content_lengths_B=array(content),
        given_BS=np.zeros(slot_BS.shape, np.bool_),
        causal_N=causal_targets(prompt_BP, slot_BS, array(content)),
        head_BH=array([ids(n) + [bpe.PAD] * (HEAD - n) for n in head_lengths]),
        head_lengths_B=array(head_lengths),
    )


def on_cpu(batch: Batch) -> TokenBatch:
    return TokenBatch.of(batch, torch.device("cpu"))


def make_model(config: ModelConfig, ops: Ops) -> DiffusionGemma:
    model = DiffusionGemma(config, ops)
    initialise(model, torch.Generator().manual_seed(0))
    return model


@torch.no_grad()
def test_padded_and_repeated_pass_equals_the_engines_pass_of_each_row(config: ModelConfig) -> None:
    model = make_model(config, Ops.reference())
    batch = on_cpu(make_batch([24, 9, 17], [4, 0, 2], [3, 8, 5]))
    cache = GraphKV()
    layout = encoder_layout(batch.prompt_lengths_B, PROMPT, SLOT, config.sliding_window)
    ids_BT = torch.cat((batch.prompt_BP, batch.slot_BS), dim=1)
    hidden_BTD = model.encode(ids_BT, cache, positions_BT=layout.positions, attention_masks=layout.masks)
    cache.truncate(PROMPT)
    cache.repeat(2)
    layout = canvas_layout(
        batch.prompt_lengths_B, batch.head_lengths_B, prompt_tokens=PROMPT, slot_size=SLOT, head_tokens=HEAD,
        num_canvases=2, sliding_window=config.sliding_window,
    )  # fmt: skip
    canvas = torch.cat((batch.slot_BS, batch.head_BH), dim=1)
    other = torch.cat((batch.slot_BS.flip(1), batch.head_BH), dim=1)
    soft_XLD = torch.randn(6, SLOT + HEAD, 32, generator=torch.Generator().manual_seed(1))
    beside = model.decode(
        torch.stack((canvas, other), dim=1).flatten(0, 1), cache, soft_BLD=soft_XLD, positions_BL=layout.positions,
        attention_masks=layout.masks,
    ).unflatten(0, (3, 2))  # fmt: skip
    for row in range(3):
        length, real = int(batch.prompt_lengths_B[row]), SLOT + int(batch.head_lengths_B[row])
        alone = PromptCache(config, capacity=64, dtype=torch.float32, device=torch.device("cpu"))
        hidden_TD = model.encode(ids_BT[row : row + 1, PROMPT - length :], alone)[0]
        torch.testing.assert_close(hidden_BTD[row, PROMPT - length :], hidden_TD, atol=model_error(32), rtol=0)
        alone.truncate(length)
        for index, ids in enumerate((canvas, other)):
            soft = soft_XLD[2 * row + index, :real][None]
            hidden_LD = model.decode(ids[row : row + 1, :real], alone, soft_BLD=soft)[0]
            torch.testing.assert_close(beside[row, index, :real], hidden_LD, atol=model_error(32), rtol=0)


def test_every_parameter_gets_a_finite_gradient(config: ModelConfig) -> None:
    balance = RoutingBalance(torch.device("cpu"))
    model = make_model(config, balance.ops())
    with torch.autocast("cpu", torch.bfloat16):
        generator = torch.Generator().manual_seed(0)
        batch = on_cpu(make_batch([24, 9, 17], [4, 0, 2], [3, 8, 5]))
        levels_BR = noise_levels(3, 2, generator)
        losses = infilling_losses(
            model, batch, levels_BR=levels_BR, num_judgements=2, generator=generator, vocabulary=Vocabulary.eager()
        )
        (losses.slot + losses.causal + balance.take()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


def test_slot_weights_share_one_token_among_later_fills() -> None:
    weights_BS = slot_weights(torch.tensor([3, 8, 1]), 8)
    assert weights_BS[0].tolist() == pytest.approx([1, 1, 1, 0.2, 0.2, 0.2, 0.2, 0.2])
    assert weights_BS[1].tolist() == [1.0] * 8
    assert weights_BS.sum(-1).tolist() == pytest.approx([4, 8, 2])


def test_balance_is_one_when_even_and_more_when_not() -> None:
    balance = RoutingBalance(torch.device("cpu"))
    route, scale_E = balance.ops().route, torch.ones(4)
    route(torch.eye(4).repeat(8, 1) * 20, scale_E, 1)
    assert balance.take().item() == pytest.approx(1.0, abs=1e-4)
    route(torch.tensor([[20.0, 0, 0, 0]]).repeat(8, 1), scale_E, 1)
    assert balance.take().item() == pytest.approx(4.0, abs=1e-4)
    with pytest.raises(AssertionError):
        balance.take()


@torch.no_grad()
def test_losses_equal_those_computed_row_by_row_without_padding(config: ModelConfig) -> None:
    model = make_model(config, Ops.reference())
    arrays = make_batch([24, 9, 17], [4, 0, 2], [3, 8, 5])
    for row, length in enumerate(arrays.prompt_lengths_B.tolist()):
        arrays.prompt_BP[row, PROMPT - length : PROMPT - length + 2] = (bpe.BOS, bpe.SUFFIX)
    arrays.slot_BS[1, -1] = bpe.MORE
    targets_N = causal_targets(arrays.prompt_BP, arrays.slot_BS, arrays.content_lengths_B)
    batch = on_cpu(replace(arrays, causal_N=targets_N))
    losses = infilling_losses(
        model,
        batch,
        levels_BR=torch.zeros(3, 1),
        num_judgements=1,
        generator=torch.Generator().manual_seed(0),
        vocabulary=Vocabulary.eager(),
    )
    causal: list[torch.Tensor] = []
    slot: list[torch.Tensor] = []
    for row in range(3):
        length, content = int(batch.prompt_lengths_B[row]), int(batch.content_lengths_B[row])
        prompt, middle = batch.prompt_BP[row, PROMPT - length :], batch.slot_BS[row]
        cache = PromptCache(config, capacity=64, dtype=torch.float32, device=torch.device("cpu"))
        text = torch.cat((prompt, middle[:content]))
        log_probs = model.logits(model.encode(text[None], cache))[0].log_softmax(-1)
        for position in range(1, len(text)):
            target = int(text[position])
            if target >= 16 or (position >= length and target == bpe.FILL):
                causal.append(-log_probs[position - 1, target])
        cache.truncate(length)
        canvas = torch.cat((middle, batch.head_BH[row, : int(batch.head_lengths_B[row])]))
        log_probs = model.logits(model.decode(canvas[None], cache))[0, :SLOT].log_softmax(-1)
        slot.append(-log_probs[torch.arange(SLOT), middle] * slot_weights(batch.content_lengths_B, SLOT)[row])
    torch.testing.assert_close(losses.causal, torch.stack(causal).mean(), atol=model_error(32), rtol=model_error(32))
    expected = torch.cat(slot).sum() / slot_weights(batch.content_lengths_B, SLOT).sum()
    torch.testing.assert_close(losses.slot, expected, atol=model_error(32), rtol=model_error(32))
