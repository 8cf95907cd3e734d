"""Losses and distributions computed in chunks equal those of plain PyTorch in one piece."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from dgemma_engine.model.config import LayerKind, ModelConfig, RopeConfig
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.tools.training.initial import initialise
from dgemma_engine.tools.training.optimization import vocabulary as module
from dgemma_engine.tools.training.optimization.vocabulary import Vocabulary

from tests.rounding import sum_error

pytestmark = pytest.mark.numerical

# Sums over 300 tokens after sums over 32 channels.
CLOSE = {"rtol": 10 * sum_error(300), "atol": 10 * sum_error(300)}


@pytest.fixture
def model() -> DiffusionGemma:
    s, f = LayerKind.SLIDING, LayerKind.FULL
    config = ModelConfig(
        vocab_size=300, hidden_size=32, intermediate_size=32, moe_intermediate_size=16, num_experts=4, top_k_experts=2,
        layer_kinds=(f,), num_attention_heads=4, num_kv_heads={s: 2, f: 2}, head_dim={s: 8, f: 8},
        rope=dict.fromkeys((s, f), RopeConfig(theta=1e4, rotated_share=1.0)),
        sliding_window=10, rms_norm_eps=1e-6, final_logit_softcapping=3.0, max_position_embeddings=128,
        canvas_length=32, pad_token_id=0, eos_token_ids=(1,), bos_token_id=2,
    )  # fmt: skip
    model = DiffusionGemma(config, Ops.reference())
    initialise(model, torch.Generator().manual_seed(0))
    return model


@pytest.fixture(params=[1, 7, 64])
def chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Vocabulary:
    """Chunks of one row, of several with a shorter last one, and one chunk for all."""
    monkeypatch.setattr(module, "_CHUNK_LOGITS", {"cpu": 300 * request.param})
    return Vocabulary.eager()


def test_loss_and_gradients_equal_plain_cross_entropy(model: DiffusionGemma, chunked: Vocabulary) -> None:
    generator = torch.Generator().manual_seed(1)
    hidden_ND = torch.randn(30, 32, generator=generator, requires_grad=True)
    targets_N = torch.randint(300, (30,), generator=generator)
    weights_N = torch.rand(30, generator=generator)
    table_VD = model.embed_tokens.weight

    losses_N = F.cross_entropy(model.logits(hidden_ND), targets_N, reduction="none")
    plain = (losses_N * weights_N).sum()
    wanted = torch.autograd.grad(3 * plain, (hidden_ND, table_VD))
    loss = chunked.loss(model, hidden_ND, targets_N, weights_N)
    got = torch.autograd.grad(3 * loss, (hidden_ND, table_VD))

    torch.testing.assert_close(loss, plain, **CLOSE)
    torch.testing.assert_close(got, wanted, **CLOSE)


def test_loss_in_mixed_precision_has_gradients_in_the_parameters_dtype(model: DiffusionGemma) -> None:
    hidden_ND = torch.randn(9, 32, generator=torch.Generator().manual_seed(1)).bfloat16().requires_grad_()
    targets_N, weights_N = torch.arange(9), torch.full((9,), 1 / 9)
    with torch.autocast("cpu", torch.bfloat16):
        loss = Vocabulary.eager().loss(model, hidden_ND, targets_N, weights_N)
    loss.backward()
    assert loss.dtype is torch.float32
    assert hidden_ND.grad is not None and hidden_ND.grad.dtype is torch.bfloat16
    assert model.embed_tokens.weight.grad is not None and model.embed_tokens.weight.grad.dtype is torch.float32
    expected = F.cross_entropy(model.logits(hidden_ND.float()), targets_N)
    torch.testing.assert_close(loss, expected, atol=0.02, rtol=0.02)


@torch.no_grad()
def test_soft_embedding_equals_the_expected_embedding(model: DiffusionGemma, chunked: Vocabulary) -> None:
    hidden_ND = torch.randn(30, 32, generator=torch.Generator().manual_seed(1))
    wanted_ND = model.soft_embeddings(torch.softmax(model.logits(hidden_ND) / 0.5, dim=-1))
    torch.testing.assert_close(chunked.soft_embeddings(model, hidden_ND, torch.tensor(0.5)), wanted_ND, **CLOSE)
