"""Which rows a canvas starts with and what is read out of them, on literals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.diffusion.denoiser import Guess
from dgemma_engine.infill import hypotheses
from dgemma_engine.infill.candidate import MiddleEnds
from dgemma_engine.infill.hypotheses import Hypothesis, RowReading
from dgemma_engine.infill.task import Hole
from dgemma_engine.prompt_lookup.candidates import Seed
from dgemma_engine.tokenization.token_healing import Closing, Opening, back_off

FORM = InfillFormat(
    fill_token_id=7,
    more_token_id=8,
    prefix_token_id=5,
    suffix_token_id=6,
    slot_sizes=(4, 8, 16),
    prefix_tokens=24,
    suffix_tokens=8,
    suffix_head_tokens=6,
)
FREE = Opening(given_ids=(), first_ids=None)
BEGUN = Opening(given_ids=(50,), first_ids=(51, 52))
OPEN_END = Closing(last_ids=None, given_ids=())


def hole(prefix: str = "x = ", suffix: str = "\ny", head_ids: tuple[int, ...] = (30, 31)) -> Hole:
    return Hole(
        boundary=back_off(prefix, suffix),
        prompt_ids=[2, 40],
        parallel_ids=[],
        head_ids=head_ids,
        end_ids=frozenset({7}),
        is_last=False,
        around_ids=[],
    )


def found(text: str) -> Seed:
    return Seed(text=text, before=3, after=1, count=1)


def encode(text: str) -> list[int]:
    return [100 + ord(character) for character in text]


def test_every_size_is_tried_with_every_opening() -> None:
    rows = [made.row for made in hypotheses.slots(hole(), (4, 8), [FREE, BEGUN], FORM, most=64, seed=1)]
    assert [(row.num_free, row.opening_ids, row.first_ids) for row in rows] == [
        (4, (), None), (4, (50,), (51, 52)), (8, (), None), (8, (50,), (51, 52)),
    ]  # fmt: skip
    assert all(row.head_ids == (30, 31) for row in rows)
    assert len({row.seed for row in rows}) == len(rows)


def test_bound_row_starts_from_what_was_typed() -> None:
    [_free, bound] = hypotheses.slots(hole(), (4,), [FREE, BEGUN], FORM, most=64, seed=1)
    assert bound.row.warm_ids == (51,)


def test_slots_keep_to_the_canvas() -> None:
    [made] = hypotheses.slots(hole(), (16,), [BEGUN], FORM, most=10, seed=1)
    assert len(made.row.positions()) == 10


def test_first_row_draws_from_the_seed_of_the_request() -> None:
    [made] = hypotheses.slots(hole(), (4,), [FREE], FORM, most=64, seed=77)
    assert made.row.seed == 77


@pytest.mark.parametrize(("form", "head"), [(FORM, (7, 7, 7, 30, 31)), (FORM.without_fill(), (30, 31))])
def test_known_length_clamps_what_follows(form: InfillFormat, head: tuple[int, ...]) -> None:
    [made] = hypotheses.known_length(hole(), 5, [FREE], form, most=64, seed=1)
    assert (made.row.num_free, made.row.head_ids, made.exact) == (5, head, True)


def test_known_length_counts_the_opening() -> None:
    [made] = hypotheses.known_length(hole(), 5, [BEGUN], FORM, most=64, seed=1)
    assert made.row.num_free == 4


def test_grid_draws_twice_and_leaves_out_what_does_not_fit() -> None:
    made = hypotheses.length_grid(hole(), (1, 4, 60), [FREE], [OPEN_END], longer=False, most=32, seed=1)
    assert [one.row.num_free for one in made] == [1, 1, 4, 4]
    assert all(one.exact for one in made)


def test_longest_row_has_no_end_where_the_middle_may_be_longer() -> None:
    made = hypotheses.length_grid(hole(), (1, 4), [FREE], [OPEN_END], longer=True, most=32, seed=1)
    assert [one.exact for one in made] == [True, True, False, False]


def test_grid_uses_other_ways_to_begin_and_end_with_the_second_draw() -> None:
    closing = Closing(last_ids=(60,), given_ids=(61,))
    first, second = hypotheses.length_grid(
        hole(), (4,), [FREE, BEGUN], [closing, OPEN_END], longer=False, most=32, seed=1
    )
    assert (first.row.opening_ids, first.row.last_ids, first.row.head_ids) == ((), (60,), (61, 30, 31))
    assert (second.row.opening_ids, second.row.last_ids, second.row.head_ids) == ((50,), None, (30, 31))


def test_warm_row_holds_the_seed_and_fills_after_it() -> None:
    [made] = hypotheses.warm(hole("a.b"), [found("cd")], encode, FORM, most=64, seed=1)
    assert made.row.opening_ids == tuple(encode("b"))
    assert made.row.warm_ids == (*encode("cd"), 7, 7)
    assert (made.row.num_free, made.exact) == (4, False)


def test_warm_row_without_a_fill_token_is_as_long_as_the_seed() -> None:
    [made] = hypotheses.warm(hole(), [found("cde")], encode, FORM.without_fill(), most=64, seed=1)
    assert (made.row.num_free, made.row.warm_ids, made.exact) == (3, tuple(encode("cde")), True)


def test_seed_that_does_not_fit_is_left_out() -> None:
    assert not hypotheses.warm(hole(), [found("x" * 17)], encode, FORM, most=64, seed=1)
    assert not hypotheses.warm(hole(), [found("xxx")], encode, FORM, most=5, seed=1)


def reading_of(ids: Sequence[int], confidence: Sequence[float], made: Hypothesis) -> RowReading:
    guess = Guess(ids=list(ids), confidence=list(confidence), entropy=[0.0] * len(ids), steps=1)
    return hypotheses.read(guess, made, MiddleEnds(behind=frozenset({7})), FORM)


def test_reading_ends_at_the_fill_token_and_counts_it() -> None:
    [made] = hypotheses.slots(hole(), (4,), [BEGUN], FORM, most=64, seed=1)
    reading = reading_of([20, 21, 7, 7], [0.5, 0.25, 0.5, 0.1], made)
    assert reading.ids == [50, 20, 21]
    assert reading.token_logprobs == pytest.approx([math.log(0.5), math.log(0.25)])
    assert reading.mean_logprob == pytest.approx(math.log(0.0625) / 3)
    assert reading.ended


@pytest.mark.parametrize(
    ("slot", "ends", "expected", "ended"),
    [
        ([20, 21, 7, 7], {7}, [20, 21], True),
        ([7, 20, 21, 22], {7}, [], True),
        ([20, 21, 1, 7], {7, 1}, [20, 21], True),
        ([20, 21, 22, 8], {7}, [20, 21, 22], False),
        ([20, 21, 22, 23], {7}, [20, 21, 22, 23], False),
        ([20, 21, 22, 23], set(), [20, 21, 22, 23], True),
    ],
)
def test_reading_ends_at_the_first_token_that_ends_a_middle(
    slot: list[int], ends: set[int], expected: list[int], ended: bool
) -> None:
    [made] = hypotheses.slots(hole(), (4,), [FREE], FORM, most=64, seed=1)
    guess = Guess(ids=slot, confidence=[0.5] * 4, entropy=[0.0] * 4, steps=1)
    reading = hypotheses.read(guess, made, MiddleEnds(behind=frozenset(ends)), FORM)
    assert (reading.ids, reading.ended) == (expected, ended)


@pytest.mark.parametrize(
    ("slot", "expected", "ended"),
    [
        ([20, 9, 21, 7], [20, 9], True),
        ([9, 20, 21, 7], [9], True),
        ([20, 7, 9, 21], [20], True),
        ([20, 8, 9, 21], [20], False),
        ([20, 21, 22, 9], [20, 21, 22, 9], True),
    ],
)
def test_reading_keeps_a_token_that_is_the_last_of_a_middle(slot: list[int], expected: list[int], ended: bool) -> None:
    [made] = hypotheses.slots(hole(), (4,), [FREE], FORM, most=64, seed=1)
    guess = Guess(ids=slot, confidence=[0.5, 0.25, 0.125, 0.1], entropy=[0.0] * 4, steps=1)
    reading = hypotheses.read(guess, made, MiddleEnds(behind=frozenset({7}), last=frozenset({9})), FORM)
    assert (reading.ids, reading.ended) == (expected, ended)
    assert reading.token_logprobs == tuple(map(math.log, guess.confidence[: len(expected)]))


def test_exact_row_has_ended_whatever_it_holds() -> None:
    [made] = hypotheses.known_length(hole(), 3, [FREE], FORM, most=64, seed=1)
    assert reading_of([20, 21, 22], [0.5] * 3, made).ended


def test_promising_rows_are_sure_and_have_an_end() -> None:
    def reading(mean: float, *, ended: bool) -> RowReading:
        return RowReading(ids=[1], token_logprobs=(mean,), logprobs=(mean,), mean_logprob=mean, ended=ended)

    readings = {3: reading(-0.5, ended=False), 5: reading(-1.0, ended=True), 6: reading(-0.2, ended=True)}
    assert hypotheses.promising(readings, 2) == [6, 5]
