"""Token distributions of a canvas: the same however many positions are taken at a time, without suppressed tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint.loader import load_model
from dgemma_engine.diffusion import token_distribution
from dgemma_engine.diffusion.token_distribution import VocabularyScorer
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma

from tests.rounding import sum_error

pytestmark = pytest.mark.numerical

BANNED = torch.tensor([3, 7])


@pytest.fixture(scope="module")
def model(make_checkpoint: Callable[..., Any]) -> DiffusionGemma:
    return load_model(make_checkpoint().folder, Ops.reference(), device=torch.device("cpu"), dtype=torch.float32)


def draw_hidden(model: DiffusionGemma, num_positions: int) -> torch.Tensor:
    return torch.randn(num_positions, model.config.hidden_size, generator=torch.Generator().manual_seed(num_positions))


@pytest.mark.parametrize("at_once", [1, 3, 100])
@torch.inference_mode()
def test_distribution_is_the_distribution_of_the_allowed_tokens(
    model: DiffusionGemma, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocab_size = model.config.vocab_size
    monkeypatch.setattr(token_distribution, "_CACHED_LOGITS", at_once * vocab_size)
    barred = torch.ones(vocab_size, dtype=torch.bool)
    barred[[5, 9]] = False
    hidden = draw_hidden(model, 8)
    distribution = VocabularyScorer(model, suppressed_ids=BANNED).score(hidden, 0.5, [(4, barred)])
    logits = model.logits(hidden[None])[0]
    logits[:, BANNED] = -torch.inf
    logits[4, barred] = -torch.inf
    expected = torch.softmax(logits / 0.5, -1)
    assert torch.allclose(distribution.probs_NV, expected, atol=10 * sum_error(64))
    assert torch.equal(distribution.best_N, expected.argmax(-1))
    assert torch.allclose(distribution.entropy_N, torch.special.entr(expected).sum(-1), atol=10 * sum_error(64))
    assert set(distribution.probs_NV[4].nonzero().flatten().tolist()) <= {5, 9}
    allowed = expected > 0
    assert torch.allclose(distribution.scaled_NV[allowed], (logits / 0.5)[allowed], atol=10 * sum_error(64))


@torch.inference_mode()
def test_smaller_canvas_reads_nothing_of_an_earlier_one(model: DiffusionGemma) -> None:
    shared = VocabularyScorer(model, suppressed_ids=BANNED)
    shared.score(draw_hidden(model, 8), 0.5)
    hidden = draw_hidden(model, 3)
    again, fresh = shared.score(hidden, 0.7), VocabularyScorer(model, suppressed_ids=BANNED).score(hidden, 0.7)
    assert torch.equal(again.probs_NV, fresh.probs_NV)
    assert torch.equal(again.best_N, fresh.best_N)


@torch.inference_mode()
def test_reads_only_as_many_positions_as_are_wanted(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_distribution, "_CACHED_LOGITS", 3 * model.config.vocab_size)
    hidden = draw_hidden(model, 8)
    whole, part = (
        VocabularyScorer(model, suppressed_ids=BANNED).score(hidden, 0.7, num_read=num_read) for num_read in (None, 5)
    )
    assert torch.equal(part.probs_NV, whole.probs_NV)
    assert torch.equal(part.best_N, whole.best_N[:5])
    assert torch.equal(part.entropy_N, whole.entropy_N[:5])
