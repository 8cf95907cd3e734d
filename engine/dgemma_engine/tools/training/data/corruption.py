"""Noise on the slots of a batch: token ids in, canvases out. Given tokens and the suffix head are never touched.

Shape legend: B rows, R canvases per row, S slot, H suffix head, L = S + H.
"""

from __future__ import annotations

import torch
from torch import Tensor

FULL_NOISE_SHARE = 0.1
"""Share of canvases that are noise throughout: where the engine starts."""


def noise_levels(num_rows: int, num_canvases: int, generator: torch.Generator) -> Tensor:
    """Returns levels [B, R] in (0, 1], stratified over the batch and shuffled, some of them exactly 1.

    Args:
        num_rows: B.
        num_canvases: R.
        generator: random draws, and the device of the result.
    """
    device, count = generator.device, num_rows * num_canvases
    strata = torch.arange(count, device=device) + torch.rand(count, generator=generator, device=device)
    full = torch.rand(count, generator=generator, device=device) < FULL_NOISE_SHARE
    order = torch.randperm(count, generator=generator, device=device)
    return torch.where(full, 1.0, 1 - strata / count)[order].view(num_rows, num_canvases)


def corrupted_canvases(
    slot_BS: Tensor,
    given_BS: Tensor,
    head_BH: Tensor,
    levels_BR: Tensor,
    vocab_size: int,
    generator: torch.Generator,
) -> Tensor:
    """Returns noisy canvases [B, R, L], int64: each slot token is a uniform token with its canvas's probability.

    Args:
        slot_BS: clean slots, int64.
        given_BS: bool, slot tokens that stay as they are.
        head_BH: clamped suffix heads, int64.
        levels_BR: noise level of each canvas, 0 to 1.
        vocab_size: the noise is uniform over all of it, as in the sampler.
        generator: random draws, on the tensors' device.
    """
    num_canvases = levels_BR.shape[1]
    shape = (*levels_BR.shape, slot_BS.shape[1])
    hit = torch.rand(shape, generator=generator, device=slot_BS.device) < levels_BR[..., None]
    noise = torch.randint(0, vocab_size, shape, generator=generator, device=slot_BS.device)
    slots_BRS = torch.where(hit & ~given_BS[:, None], noise, slot_BS[:, None])
    return torch.cat((slots_BRS, head_BH[:, None].expand(-1, num_canvases, -1)), dim=-1)
