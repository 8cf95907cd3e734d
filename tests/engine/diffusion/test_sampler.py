"""Each decision of the sampler with literals."""

from __future__ import annotations

import pytest
import torch
from dgemma_engine.diffusion.sampler import (
    EntropyBound,
    EveryStep,
    PositionScores,
    Sampler,
    StableAndConfident,
    TemperatureSchedule,
    UniformNoise,
)
from dgemma_engine.diffusion.token_distribution import sample

pytestmark = pytest.mark.numerical

ALL_FREE = torch.tensor([[True, True, True, True]])
NO_IDS = torch.zeros(1, 4, dtype=torch.int64)


def scores(
    entropy_RM: torch.Tensor, valid_RM: torch.Tensor = ALL_FREE, best_RM: torch.Tensor = NO_IDS
) -> PositionScores:
    return PositionScores(best_RM=best_RM, entropy_RM=entropy_RM, valid_RM=valid_RM)


def test_temperature_falls_linearly_from_t_max_towards_t_min() -> None:
    schedule = TemperatureSchedule(t_min=0.4, t_max=0.8)
    assert [round(schedule.temperature(remaining, 4), 3) for remaining in (4, 3, 2, 1)] == [0.8, 0.7, 0.6, 0.5]


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (1e-9, [False, True, False, False]),
        (0.15, [False, True, False, True]),
        (0.4, [False, True, True, True]),
        (100.0, [True, True, True, True]),
    ],
)
def test_accept_takes_the_surest_while_the_others_fit_the_bound(bound: float, expected: list[bool]) -> None:
    entropy_BL = torch.tensor([[2.0, 0.1, 0.5, 0.2]])
    assert EntropyBound(bound=bound).accept(scores(entropy_BL))[0].tolist() == expected


def test_accept_never_takes_fixed_positions_nor_spends_budget_on_them() -> None:
    entropy_BL = torch.tensor([[0.3, 0.0, 0.3, 0.3]])
    free_BL = torch.tensor([[True, False, True, False]])
    assert EntropyBound(bound=0.1).accept(scores(entropy_BL, free_BL))[0].tolist() == [True, False, False, False]
    assert EntropyBound(bound=0.3).accept(scores(entropy_BL, free_BL))[0].tolist() == [True, False, True, False]


def test_finished_needs_stability_and_confidence() -> None:
    stop = StableAndConfident(num_earlier=2, confidence=0.5)
    best, other = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 3, 5]])
    sure, unsure = torch.full((1, 4), 0.1), torch.full((1, 4), 0.9)
    assert stop.finished([best, best], scores(sure, best_RM=best)).tolist() == [True]
    assert stop.finished([best, best], scores(unsure, best_RM=best)).tolist() == [False]
    assert stop.finished([other, best], scores(sure, best_RM=best)).tolist() == [False]
    assert stop.finished([best], scores(sure, best_RM=best)).tolist() == [False]


def test_finished_reads_free_positions_only() -> None:
    stop = StableAndConfident(num_earlier=1, confidence=0.5)
    free_BL = torch.tensor([[True, True, True, False]])
    before, best = torch.tensor([[1, 2, 3, 9]]), torch.tensor([[1, 2, 3, 4]])
    entropy_BL = torch.tensor([[0.1, 0.1, 0.1, 50.0]])
    assert stop.finished([before], scores(entropy_BL, free_BL, best)).tolist() == [True]


def test_sample_follows_the_distribution() -> None:
    probs = torch.tensor([0.5, 0.0, 0.2, 0.3]).expand(20_000, 4)
    drawn = sample(probs, torch.rand(20_000, 1, generator=torch.Generator().manual_seed(0)))
    shares = torch.bincount(drawn, minlength=4) / 20_000
    assert shares[1] == 0
    assert torch.allclose(shares, probs[0], atol=0.02)


def test_sample_never_draws_past_the_last_possible_token() -> None:
    probs = torch.zeros(1000, 5)
    probs[:, 0] = 1.0
    levels = torch.linspace(0, 1 - 2**-24, 1000)[:, None]
    assert sample(probs, levels).unique().tolist() == [0]


def test_noise_covers_the_vocabulary() -> None:
    drawn = UniformNoise(vocab_size=7).draw(3, 500, torch.Generator().manual_seed(0))
    assert drawn.shape == (3, 500)
    assert drawn.unique().tolist() == list(range(7))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TemperatureSchedule(t_min=0.8, t_max=0.4), r"self.t_max=0.4 must be > 0 and >= self.t_min=0.8 >= 0"),
        (lambda: TemperatureSchedule(t_min=0.0, t_max=0.0), r"self.t_max=0.0 must be > 0"),
        (lambda: EntropyBound(bound=0.0), r"self.bound=0.0 must be > 0"),
        (lambda: StableAndConfident(num_earlier=-1, confidence=1.0), r"self.num_earlier=-1 must be >= 0"),
        (lambda: StableAndConfident(num_earlier=1, confidence=0.0), r"self.confidence=0.0 must be > 0"),
    ],
)
def test_bad_value_is_named(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()


def test_sampler_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="num_steps=0 must be at least 1"):
        Sampler(
            num_steps=0,
            schedule=TemperatureSchedule(t_min=0.4, t_max=0.8),
            acceptance=EntropyBound(bound=0.1),
            noise=UniformNoise(vocab_size=4),
            stop=StableAndConfident(num_earlier=1, confidence=0.1),
        )


def test_rule_for_every_step_ends_no_row() -> None:
    rule = EveryStep()
    sure = scores(torch.zeros(2, 4), torch.ones(2, 4, dtype=torch.bool), torch.zeros(2, 4, dtype=torch.int64))
    assert rule.num_earlier == 0
    assert rule.finished([sure.best_RM], sure).tolist() == [False, False]
