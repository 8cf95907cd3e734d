"""Grouped attention on a processor, by matrix products and by fused attention, against a softmax in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from dgemma_engine.backends.cpu.attention import GroupedAttention
from torch import Tensor

pytestmark = pytest.mark.numerical

GROUPS, FOLD, SIZE = 2, 3, 16


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def exact(q_NHd: Tensor, kv_2GSd: Tensor, mask_NS: Tensor, scale: float) -> tuple[Tensor, float]:
    """Returns the outputs, [N, H * d], and the greatest absolute score before the mask."""
    q_GRNd = (q_NHd.double() * scale).transpose(0, 1).unflatten(0, (GROUPS, FOLD))
    scores_GRNS = q_GRNd @ kv_2GSd[0].double()[:, None].transpose(-1, -2)
    out_GRNd = (scores_GRNS + mask_NS).softmax(-1) @ kv_2GSd[1].double()[:, None]
    return out_GRNd.permute(2, 0, 1, 3).flatten(1), float(scores_GRNS.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_tokens", [1, 13, 15, 16, 49, 123])
@pytest.mark.parametrize("num_keys", [128, 2_176])
def test_attention_is_a_softmax_over_visible_keys(dtype: torch.dtype, num_tokens: int, num_keys: int) -> None:
    scale, num_rows, first_key = SIZE**-0.5, num_tokens + 3, 5
    q_NHd = draw(num_tokens, GROUPS * FOLD, SIZE)
    kv_2GSd = draw(2, GROUPS, num_keys + 9, SIZE).to(dtype)
    hidden_NS = draw(num_tokens, num_keys) > 0.5
    hidden_NS[:, -20:] = True
    mask = torch.zeros(1, 1, num_rows, num_keys)
    mask[0, 0, :num_tokens].masked_fill_(hidden_NS, -math.inf)
    attend = GroupedAttention(GROUPS * FOLD, GROUPS, SIZE, scale)
    masks = [mask.to(dtype).repeat(1, 1, FOLD, 1)]
    found_PO = attend(q_NHd, [kv_2GSd], num_rows, [num_tokens], [num_rows], [first_key], masks)
    seen_2GSd = kv_2GSd[:, :, first_key : first_key + num_keys]
    expected_NO, greatest = exact(q_NHd, seen_2GSd, mask[0, 0, :num_tokens].double(), scale)
    # Queries, scores and weights are rounded once each; an error of a score is a relative error of its weight.
    eps = torch.finfo(dtype).eps
    error = (found_PO[:num_tokens] - expected_NO).abs().max()
    assert error <= eps * (2 * greatest + 4) * seen_2GSd[1].abs().max()
    assert not found_PO[num_tokens:].any(), "no token attends to the padding"


@pytest.mark.parametrize(
    ("dtype", "num_tokens", "num_keys", "fused"),
    [
        (torch.bfloat16, 49, 640, False),
        (torch.bfloat16, 1, 640, True),
        (torch.bfloat16, 49, 4_096, True),
        (torch.float32, 49, 640, True),
    ],
)
def test_products_take_the_place_of_fused_attention_where_they_are_faster(
    dtype: torch.dtype, num_tokens: int, num_keys: int, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    attention: Callable[..., Tensor] = F.scaled_dot_product_attention

    def watched(*tensors: Tensor, **options: Any) -> Tensor:
        calls.append(1)
        return attention(*tensors, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    attend = GroupedAttention(GROUPS * FOLD, GROUPS, SIZE, 1.0)
    kv_2GSd, mask = draw(2, GROUPS, num_keys, SIZE).to(dtype), torch.zeros(1, 1, 1, num_keys, dtype=dtype)
    attend(draw(num_tokens, GROUPS * FOLD, SIZE), [kv_2GSd], num_tokens, [num_tokens], [num_tokens], [0], [mask])
    assert bool(calls) is fused
