"""Environment before Ray is imported: a token, no usage statistics, loopback unless another Ray is joined."""

from __future__ import annotations

import pytest
from dgemma_engine.cluster.closing import closed

ALONE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def test_ray_of_our_own_has_a_token_and_loopback_addresses() -> None:
    assert closed({})["RAY_AUTH_MODE"] == "token"
    assert closed({})["RAY_USAGE_STATS_ENABLED"] == "0"
    assert closed({"RAY_ADDRESS": ""})[ALONE] == "0"


def test_ray_that_is_joined_keeps_its_addresses() -> None:
    assert ALONE not in closed({"RAY_ADDRESS": "10.0.0.1:6379"})


@pytest.mark.parametrize("name", ["RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED", ALONE])
def test_what_the_user_has_set_stays(name: str) -> None:
    assert name not in closed({name: "x"})
