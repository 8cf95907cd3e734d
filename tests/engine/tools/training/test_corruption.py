from __future__ import annotations

import torch
from dgemma_engine.tools.training.data.corruption import FULL_NOISE_SHARE, corrupted_canvases, noise_levels


def test_levels_are_stratified_and_a_tenth_is_full_noise() -> None:
    levels_BR = noise_levels(500, 4, torch.Generator().manual_seed(0))
    assert levels_BR.shape == (500, 4)
    assert levels_BR.min() > 0
    assert abs((levels_BR == 1).float().mean() - FULL_NOISE_SHARE) < 0.03
    ascending = levels_BR[levels_BR < 1].sort().values
    assert (ascending.diff() < 0.01).all()


def test_corruption_hits_the_slot_and_leaves_the_suffix_head_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    slot_BS = torch.full((3, 1_000), 7)
    head_BH = torch.arange(16).repeat(3, 1)
    levels_BR = torch.tensor([[0.0, 1.0], [0.5, 0.1], [1.0, 0.0]])
    canvases_BRL = corrupted_canvases(
        slot_BS, torch.zeros(3, 1_000, dtype=torch.bool), head_BH, levels_BR, 512, generator
    )
    assert canvases_BRL.shape == (3, 2, 1_016)
    assert (canvases_BRL[..., 1_000:] == head_BH[:, None]).all()
    changed_BR = (canvases_BRL[..., :1_000] != 7).float().mean(-1)
    torch.testing.assert_close(changed_BR, levels_BR, atol=0.06, rtol=0)
    assert changed_BR[0, 0] == 0
    assert canvases_BRL.min() >= 0
    assert canvases_BRL.max() < 512


def test_given_tokens_of_the_slot_are_left_alone() -> None:
    given_BS = torch.arange(400)[None] % 2 == 0
    canvases_BRL = corrupted_canvases(
        torch.full((1, 400), 7),
        given_BS,
        torch.zeros(1, 0, dtype=torch.int64),
        torch.ones(1, 2),
        512,
        torch.Generator().manual_seed(0),
    )
    assert (canvases_BRL[..., given_BS[0]] == 7).all()
    assert (canvases_BRL[..., ~given_BS[0]] != 7).float().mean() > 0.95
