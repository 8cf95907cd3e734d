"""Masked diffusion's policies on literal scores: what is committed, what is masked again, when a row ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from dgemma_engine.diffusion.absorbing_mask import (
    AbsorbingMask,
    BlockShare,
    EndInBlock,
    EvenShare,
    LastShare,
    NothingMasked,
    SurestFirst,
)
from dgemma_engine.diffusion.sampler import PositionScores
from torch import Tensor


def scores(
    entropy: list[list[float]], committed: list[list[int]], valid: list[list[int]] | None = None
) -> PositionScores:
    entropy_RM = torch.tensor(entropy)
    return PositionScores(
        best_RM=torch.zeros_like(entropy_RM, dtype=torch.int64),
        entropy_RM=entropy_RM,
        valid_RM=torch.ones_like(entropy_RM, dtype=torch.bool) if valid is None else torch.tensor(valid).bool(),
        committed_RM=torch.tensor(committed).bool(),
    )


def rows(accepted: Tensor) -> list[list[int]]:
    return accepted.int().tolist()


def test_noise_is_the_mask_and_never_proposed() -> None:
    noise = AbsorbingMask(mask_id=7)
    assert noise.draw(2, 3, torch.Generator()).tolist() == [[7] * 3] * 2
    assert noise.suppressed_ids == (7,)
    assert noise.committed(torch.tensor([7, 0])).tolist() == [False, True]


def test_surest_masked_positions_are_committed_and_commitments_stay() -> None:
    found = scores([[3.0, 1.0, 2.0, 9.0], [0.5, 0.4, 0.3, 0.2]], [[0, 0, 0, 1], [0, 0, 0, 0]])
    assert rows(SurestFirst(num_tokens=2).accept(found)) == [[0, 1, 1, 1], [0, 0, 1, 1]]


def test_least_sure_commitments_are_masked_again_within_the_budget() -> None:
    found = scores([[0.1, 5.0, 3.0, 0.2, 4.0]], [[1, 1, 1, 0, 0]])
    assert rows(SurestFirst(num_tokens=2, num_remasked=1).accept(found)) == [[1, 0, 1, 1, 1]]
    assert rows(SurestFirst(num_tokens=3, num_remasked=2).accept(found)) == [[1, 0, 0, 1, 1]]
    assert rows(SurestFirst(num_tokens=3, num_remasked=2, remask_entropy=4.0).accept(found)) == [[1, 0, 1, 1, 1]]
    assert rows(SurestFirst(num_tokens=3, num_remasked=2, remask_entropy=6.0).accept(found)) == [[1, 1, 1, 1, 1]]


def test_padding_takes_no_part() -> None:
    found = scores([[0.0, 2.0, 9.0, 1.0]], [[0, 0, 1, 1]], [[0, 1, 0, 1]])
    accepted = SurestFirst(num_tokens=2, num_remasked=1).accept(found)
    assert rows(accepted)[0][1::2] == [1, 1]
    assert NothingMasked().finished([], found).tolist() == [False]
    assert NothingMasked().finished([], scores([[0.0, 0.0]], [[0, 1]], [[0, 1]])).tolist() == [True]


@pytest.mark.parametrize(
    ("num_masked", "num_steps", "shares"), [(10, 4, [3, 3, 2, 2]), (3, 8, [1, 1, 1]), (5, 1, [5]), (8, 2, [4, 4])]
)
def test_even_shares_commit_every_mask_and_the_last_is_detected(
    num_masked: int, num_steps: int, shares: list[int]
) -> None:
    committed, made = [0] * num_masked, list[int]()
    for steps_left in range(num_steps - 1, -1, -1):
        found = scores([[float(place) for place in range(num_masked)]], [committed])
        found = replace(found, steps_left=steps_left, probability_RM=-found.entropy_RM)
        [accepted] = rows(EvenShare(by="entropy").accept(found))
        made.append(sum(accepted) - sum(committed))
        committed = accepted
        if LastShare().finished([], found).item():
            break
    assert made == shares
    assert committed == [1] * num_masked


@pytest.mark.parametrize(("by", "expected"), [("entropy", [0, 1, 0, 1, 1]), ("probability", [0, 0, 1, 1, 1])])
def test_even_share_goes_to_the_surest_masks_of_its_order(
    by: Literal["entropy", "probability"], expected: list[int]
) -> None:
    found = scores([[3.0, 1.0, 2.0, 0.1, 1.5]], [[0, 0, 0, 1, 0]])
    found = replace(found, probability_RM=torch.tensor([[0.1, 0.4, 0.9, 1.0, 0.6]]), steps_left=1)
    assert rows(EvenShare(by=by).accept(found)) == [expected]


def test_rows_of_several_lengths_have_shares_of_their_own() -> None:
    found = scores([[1.0, 2.0, 3.0, 4.0], [1.0, 0.0, 0.0, 0.0]], [[0, 0, 0, 0], [0, 0, 0, 0]], [[1] * 4, [1, 0, 0, 0]])
    found = replace(found, probability_RM=-found.entropy_RM, steps_left=1)
    assert rows(EvenShare(by="entropy").accept(found)) == [[1, 1, 0, 0], [1, 0, 0, 0]]
    assert LastShare().finished([], found).tolist() == [False, True]


def test_row_whose_likeliest_token_becomes_masks_is_not_finished() -> None:
    found = scores([[1.0, 2.0], [1.0, 2.0], [1.0, 0.0]], [[1, 0], [1, 0], [1, 0]], [[1, 1], [1, 1], [1, 0]])
    found = replace(found, best_RM=torch.tensor([[3, 9], [3, 4], [3, 9]]))
    assert LastShare(expand_id=9).finished([], found).tolist() == [False, True, True]
    assert LastShare().finished([], found).tolist() == [True, True, True]


def in_blocks(committed: list[int], best: list[int], *, first: int, steps_left: int) -> PositionScores:
    """One row whose first free position is `first`; the earlier a position, the less sure it is."""
    num = len(committed)
    found = scores([[float(num - place) for place in range(num)]], [committed])
    return replace(
        found,
        best_RM=torch.tensor([best]),
        probability_RM=-found.entropy_RM,
        position_RM=torch.arange(first, first + num)[None],
        steps_left=steps_left,
    )


@pytest.mark.parametrize(
    ("committed", "first", "steps_left", "expected"),
    [
        # Positions 6 and 7 end their block: its masks are all that may be committed, whatever the share.
        ([0, 0, 0, 0, 0, 0], 6, 0, [1, 1, 0, 0, 0, 0]),
        ([0, 0, 0, 0, 0, 0], 6, 5, [0, 1, 0, 0, 0, 0]),
        ([1, 1, 0, 0, 0, 0], 6, 1, [1, 1, 0, 0, 1, 1]),
        ([1, 1, 0, 1, 0, 0], 6, 0, [1, 1, 1, 1, 1, 1]),
        ([1, 1, 1, 1, 1, 1], 6, 0, [1, 1, 1, 1, 1, 1]),
        ([0, 0, 0, 0, 0, 0], 8, 2, [0, 0, 1, 1, 0, 0]),
    ],
)
def test_share_is_committed_in_the_first_block_with_a_mask(
    committed: list[int], first: int, steps_left: int, expected: list[int]
) -> None:
    found = in_blocks(committed, [0] * 6, first=first, steps_left=steps_left)
    for by in ("entropy", "probability"):
        assert rows(BlockShare(by=by, block_tokens=4).accept(found)) == [expected]


END = 9


@pytest.mark.parametrize(
    ("committed", "best", "steps_left", "is_finished"),
    [
        # The block of the first two is whole after this step; what follows its end is no text.
        ([0, 0, 0, 0, 0, 0], [1, END, 1, 1, 1, 1], 2, True),
        ([0, 0, 0, 0, 0, 0], [1, END, 1, 1, 1, 1], 5, False),
        ([0, 0, 0, 0, 0, 0], [1, 1, END, 1, 1, 1], 2, False),
        ([1, 1, 0, 1, 0, 0], [1, 1, 1, END, 1, 1], 5, False),
        # The one mask before the end is the surest of its block.
        ([1, 1, 1, 1, 1, 0], [1, 1, END, 1, 1, 1], 5, True),
        ([1, 0, 1, 1, 1, 1], [1, 1, END, 1, 1, 1], 5, True),
        ([1, 1, 1, END, 0, 0], [1, 1, 1, END, 1, 1], 5, True),
        ([1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1], 0, True),
        ([1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1], 1, False),
    ],
)
def test_row_ends_with_the_block_of_its_end_token(
    committed: list[int], best: list[int], steps_left: int, is_finished: bool
) -> None:
    found = in_blocks(committed, best, first=6, steps_left=steps_left)
    rule = EndInBlock(acceptance=BlockShare(by="entropy", block_tokens=4), end_ids=(END,))
    assert rule.finished([], found).tolist() == [is_finished]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_tokens": 0}, r"self\.num_tokens=0 must be > self\.num_remasked=0 >= 0"),
        ({"num_tokens": 2, "num_remasked": 2}, r"self\.num_tokens=2 must be > self\.num_remasked=2"),
        ({"num_tokens": 2, "num_remasked": -1}, r"self\.num_remasked=-1"),
        ({"num_tokens": 2, "remask_entropy": -0.1}, r"self\.remask_entropy=-0\.1 must be >= 0"),
    ],
)
def test_invalid_values_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SurestFirst(**values)  # pyright: ignore[reportArgumentType]
