"""The routing kernel against a stable sort."""

from __future__ import annotations

import pytest
import torch
from dgemma_kernels import reference
from dgemma_kernels.ops import routing
from dgemma_kernels.tensors.routing import Routing

from tests.kernels.interpreted.errors import assert_as_close, draw


def assert_same(got: Routing, expected: Routing) -> None:
    for name in ("indices_NK", "assignment_M", "offset_E1", "tile_expert_T", "tile_start_T"):
        assert torch.equal(getattr(got, name).cpu(), getattr(expected, name).cpu()), name


@pytest.mark.parametrize(
    ("tokens", "size", "num_experts", "selected", "tile_rows"),
    [(1, 64, 4, 1, 16), (33, 100, 5, 2, 16), (300, 64, 16, 3, 16), (20, 64, 128, 8, 32)],
)
def test_tokens_are_sorted_by_expert(
    tokens: int, size: int, num_experts: int, selected: int, tile_rows: int, device: torch.device
) -> None:
    x, router = draw(tokens, size).to(device).bfloat16(), draw(num_experts, size, seed=1).to(device).bfloat16() * 0.1
    scale = torch.linspace(0.5, 2.0, num_experts, device=device)
    arrivals = torch.zeros(1, dtype=torch.int32, device=device)
    for _ in range(2):
        got = routing.route(x, router, scale, selected, tile_rows, arrivals_1=arrivals)
        assert int(arrivals) == 0, "the counter must be reset for the next call"
        expected = reference.routing.route(x, router, scale, selected, tile_rows)
        assert_same(got, expected)
        weights, indices = reference.plain.route(x.double() @ router.double().T, scale, selected)
        assert torch.equal(indices.int(), got.indices_NK)
        assert_as_close(got.weights_NK, expected.weights_NK, weights, slack=1e-5)


@pytest.mark.parametrize("favourite", [0, 6])
def test_all_tokens_want_one_expert_and_others_get_none(favourite: int, device: torch.device) -> None:
    router = torch.zeros(7, 64, device=device)
    router[favourite, 0] = 1.0
    x = torch.ones(40, 64, device=device)
    got = routing.route(x, router, torch.ones(7, device=device), 1, 16)
    assert_same(got, reference.routing.route(x, router, torch.ones(7, device=device), 1, 16))
    assert got.tile_expert_T.tolist() == [favourite] * 3 + [-1] * 6
    assert got.assignment_M.tolist() == list(range(40))


def test_of_equal_scores_the_lower_expert_is_chosen(device: torch.device) -> None:
    router = torch.zeros(8, 64, device=device)
    router[3], router[5] = 1.0, 1.0
    got = routing.route(torch.ones(2, 64, device=device), router, torch.ones(8, device=device), 4, 16)
    assert got.indices_NK.tolist() == [[3, 5, 0, 1]] * 2


def test_nan_scores_affect_only_their_token(device: torch.device) -> None:
    x, router = draw(5, 64).to(device), draw(6, 64, seed=1).to(device)
    scale = torch.ones(6, device=device)
    clean = routing.route(x, router, scale, 2, 16)
    x[2] = torch.nan
    got = routing.route(x, router, scale, 2, 16)
    assert_same(got, reference.routing.route(x, router, scale, 2, 16))
    assert got.weights_NK[2].isnan().all() and got.indices_NK[2].tolist() == [0, 1]
    others = [0, 1, 3, 4]
    assert torch.equal(got.weights_NK[others], clean.weights_NK[others])


def test_more_experts_than_there_are_is_refused(device: torch.device) -> None:
    with pytest.raises(ValueError, match="num_selected=3 must be between"):
        routing.route(torch.ones(1, 64, device=device), torch.ones(2, 64, device=device), torch.ones(2), 3, 16)
