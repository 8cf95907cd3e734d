"""The vocabulary tail: distributions, entropies and draws against float64, on vocabularies that no block divides."""

from __future__ import annotations

import pytest
import torch
from dgemma_kernels import reference
from dgemma_kernels.ops import vocabulary
from dgemma_kernels.tensors.vocabulary_distribution import Banned

from tests.kernels.interpreted.errors import SUM_ERROR, assert_as_close, draw

CAP = 30.0


def exact_probs(logits: torch.Tensor, temperature: float, banned: Banned | None = None) -> torch.Tensor:
    capped = CAP * torch.tanh(logits.double() / CAP)
    for position, which in enumerate([] if banned is None else banned.set_of_N.tolist()):
        if which >= 0:
            capped[position] = capped[position].masked_fill(banned.sets_RV[which], -torch.inf)
    return torch.softmax(capped / temperature, dim=-1)


@pytest.mark.parametrize(("positions", "vocab", "spread"), [(1, 64, 1.0), (5, 333, 8.0), (2, 100, 200.0)])
@pytest.mark.parametrize("temperature", [0.05, 0.8])
def test_distribution(positions: int, vocab: int, spread: float, temperature: float, device: torch.device) -> None:
    logits = (draw(positions, vocab) * spread).to(device).bfloat16()
    exact, sure = exact_probs(logits, temperature), exact_probs(logits, 1.0)
    degrees, levels = torch.tensor([temperature], device=device), torch.linspace(0, 0.999, positions, device=device)
    expected = reference.vocabulary.distribution(logits.clone(), degrees, levels, CAP, None)
    got = vocabulary.distribution(logits, degrees, levels, CAP, None)
    assert got.probs_NV.data_ptr() == logits.data_ptr(), "no second copy of the logits"
    assert_as_close(got.probs_NV, expected.probs_NV, exact)
    assert torch.allclose(got.entropy_N.double(), -torch.xlogy(exact, exact).sum(-1), atol=10 * SUM_ERROR)
    assert torch.allclose(got.confidence_N.double(), sure.amax(-1), atol=10 * SUM_ERROR)
    assert (exact.gather(1, got.best_N.long()[:, None])[:, 0] >= exact.amax(-1) * (1 - 1e-6)).all()


def test_draws_invert_the_distribution_function(device: torch.device) -> None:
    num_levels = 49
    logits = draw(1, 150).to(device).bfloat16().expand(num_levels, -1).contiguous()
    levels = torch.linspace(0, 1 - 2**-24, num_levels, device=device)
    cumulative = exact_probs(logits[:1], 0.9).cumsum(-1)[0]
    got = vocabulary.distribution(logits, torch.tensor([0.9], device=device), levels, CAP, None).sampled_N.long()
    before = torch.cat((cumulative.new_zeros(1), cumulative))[got]
    assert (levels.double() >= before - 1e-5).all() and (levels.double() <= cumulative[got] + 1e-5).all()
    assert len(got.unique()) > 20
    assert (got.diff() >= 0).all()


def test_banned_tokens_have_no_probability_and_are_never_drawn(device: torch.device) -> None:
    vocab = 200
    sets = torch.ones(2, vocab, dtype=torch.bool, device=device)
    sets[0, 70:75] = False
    sets[1, [3, 199]] = False
    banned = Banned(sets_RV=sets, set_of_N=torch.tensor([0, 0, 1, 1, -1], dtype=torch.int32, device=device))
    logits = draw(5, vocab).to(device).bfloat16()
    levels = torch.tensor([0.0, 1 - 2**-24, 0.0, 1 - 2**-24, 0.5], device=device)
    exact = exact_probs(logits, 0.5, banned)
    got = vocabulary.distribution(logits, torch.tensor([0.5], device=device), levels, CAP, banned)
    assert got.sampled_N[:4].tolist() == [70, 74, 3, 199]
    assert torch.equal(got.best_N.long(), exact.argmax(-1))
    assert (got.probs_NV[exact == 0] == 0).all()
    assert torch.allclose(got.entropy_N.double(), -torch.xlogy(exact, exact).sum(-1), atol=10 * SUM_ERROR)


def test_of_equal_logits_the_lowest_token_is_best(device: torch.device) -> None:
    logits = torch.zeros(1, 130, device=device, dtype=torch.bfloat16)
    one, level = torch.ones(1, device=device), torch.full((1,), 0.5, device=device)
    got = vocabulary.distribution(logits, one, level, CAP, None)
    assert (got.best_N.item(), got.sampled_N.item()) == (0, 65)


@pytest.mark.parametrize(("positions", "vocab", "size"), [(1, 64, 32), (17, 300, 50)])
def test_soft_embeddings(positions: int, vocab: int, size: int, device: torch.device) -> None:
    probs = torch.softmax(draw(positions, vocab) * 2, dim=-1).to(device).bfloat16()
    embed = draw(vocab, size, seed=1).to(device).bfloat16()
    got = vocabulary.soft_embeddings(probs, embed, 3.0)
    exact = probs.double() @ embed.double() * 3.0
    assert got.dtype is torch.bfloat16
    assert_as_close(got, reference.vocabulary.soft_embeddings(probs, embed, 3.0), exact)
