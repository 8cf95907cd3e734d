"""Forks of a greedily written middle: where else it could go on, and how likely that is."""

from __future__ import annotations

import math

import pytest
import torch
from dgemma_engine.infill.forks import Forks

END = 4


def probabilities(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows).log()


def found(forks: Forks, least: float = 1e-9) -> list[tuple[int, int | None, float]]:
    likeliest = forks.likeliest(least_logprob=math.log(least))
    return [(fork.place, fork.token_id, round(math.exp(fork.logprob), 4)) for fork in likeliest]


def passed(forks: Forks, ids: list[int], logits_TV: torch.Tensor, *, ended: bool = False) -> None:
    forks.passed(ids, logits_TV, num_agreed=0, draft_id=-1, ended=ended)


def test_fork_has_the_probability_of_all_its_tokens() -> None:
    forks = Forks(0, {END})
    passed(forks, [0], probabilities([0.6, 0.3, 0.1, 0.0, 0.0]))
    passed(forks, [1], probabilities([0.2, 0.5, 0.1, 0.0, 0.2]))
    assert found(forks) == [(0, 1, 0.3), (1, 0, 0.12), (1, None, 0.12)]
    assert found(forks, least=0.2) == [(0, 1, 0.3)]


def test_pass_of_several_tokens_equals_passes_of_one() -> None:
    logits_TV = probabilities([0.6, 0.3, 0.1, 0.0, 0.0], [0.2, 0.5, 0.1, 0.0, 0.2], [0.3, 0.1, 0.1, 0.1, 0.4])
    together, apart = Forks(0, {END}), Forks(0, {END})
    passed(together, [0, 1, END], logits_TV, ended=True)
    for index, token_id in enumerate([0, 1, END]):
        passed(apart, [token_id], logits_TV[index : index + 1], ended=index == 2)
    assert found(together) == found(apart)


def test_middle_that_ended_forks_to_one_that_goes_on() -> None:
    forks = Forks(0, {3, END})
    passed(forks, [END], probabilities([0.1, 0.2, 0.1, 0.2, 0.4]), ended=True)
    assert found(forks) == [(0, 1, 0.2)]


def test_end_has_the_probability_of_all_tokens_that_end_it() -> None:
    """Also where the token that was written is one of them: a bracket that may close the suffix's or an own one."""
    forks = Forks(2, {3, END})
    passed(forks, [3], probabilities([0.1, 0.2, 0.1, 0.4, 0.2]))
    assert found(forks) == [(2, None, 0.6), (2, 1, 0.2)]


def test_token_that_may_not_stand_there_is_no_fork() -> None:
    forks = Forks(0, {END})
    passed(forks, [0], probabilities([1.0, 0.0, 0.0, 0.0, 0.0]))
    assert found(forks) == []


@pytest.mark.parametrize("end_ids", [set[int](), {END}])
def test_place_counts_the_given_tokens(end_ids: set[int]) -> None:
    forks = Forks(3, end_ids)
    passed(forks, [0], probabilities([0.7, 0.3, 0.0, 0.0, 0.0]))
    assert found(forks) == [(3, 1, 0.3)]
