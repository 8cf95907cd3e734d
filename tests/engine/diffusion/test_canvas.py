"""A canvas built from literals."""

from __future__ import annotations

import pytest
import torch
from dgemma_engine.diffusion import canvas as canvases
from dgemma_engine.diffusion.canvas import Row
from dgemma_engine.diffusion.sampler import UniformNoise
from dgemma_engine.postprocess.clean_candidate import cut_to_line, drop_suffix_copy

NOISE = UniformNoise(vocab_size=50)
CPU = torch.device("cpu")


def start(*rows: Row) -> canvases.Canvas:
    return canvases.start(rows, NOISE, CPU)


def test_start_clamps_opening_and_suffix_head_around_the_free_positions() -> None:
    canvas = start(Row(num_free=5, opening_ids=(20, 21), head_ids=(31, 32)))
    assert canvas.ids_1L.shape == (1, 9)
    assert canvas.ids_1L[0, :2].tolist() == [20, 21]
    assert canvas.ids_1L[0, 7:].tolist() == [31, 32]
    assert canvas.layout.fixed_1L[0].tolist() == [True] * 2 + [False] * 5 + [True] * 2


def test_start_without_suffix_is_all_free() -> None:
    assert not start(Row(num_free=4)).layout.fixed_1L.any()


def test_row_needs_a_free_position() -> None:
    with pytest.raises(ValueError, match=r"self\.num_free=0 must be at least 1"):
        Row(num_free=0, head_ids=(3,))


def test_row_has_room_for_what_it_starts_from() -> None:
    with pytest.raises(ValueError, match=r"len\(self\.warm_ids\)=3 must not be more than self\.num_free=2"):
        Row(num_free=2, warm_ids=(1, 2, 3))


def test_warm_row_starts_from_its_tokens_and_noise_after_them() -> None:
    warm = start(Row(num_free=8, opening_ids=(9,), warm_ids=(40, 41), seed=5))
    cold = start(Row(num_free=8, opening_ids=(9,), seed=5))
    assert warm.ids_1L[0, 1:3].tolist() == [40, 41]
    assert torch.equal(warm.ids_1L[0, 3:], cold.ids_1L[0, 3:])


def test_layout_holds_row_and_offset_of_each_position() -> None:
    layout = start(Row(num_free=2, opening_ids=(20,), head_ids=(31,)), Row(num_free=3, head_ids=(32, 33))).layout
    assert layout.row_L.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert layout.offset_L.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4]
    assert layout.free_RM.tolist() == [[1, 2, 1], [4, 5, 6]]
    assert layout.valid_RM.tolist() == [[True, True, False], [True, True, True]]


def test_limits_name_the_first_and_the_last_free_position() -> None:
    layout = start(Row(num_free=2), Row(num_free=3, opening_ids=(9,), first_ids=(4, 5), last_ids=(6,))).layout
    assert layout.limits == [(3, (4, 5)), (5, (6,))]


def test_replace_writes_given_tokens_back() -> None:
    canvas = start(Row(num_free=2, opening_ids=(30,), head_ids=(31, 32)))
    canvas.replace(torch.tensor([[10, 11, 12, 13, 14]]))
    assert canvas.ids_1L[0].tolist() == [30, 11, 12, 31, 32]


def test_draws_of_a_row_do_not_depend_on_its_neighbours() -> None:
    rows = [Row(num_free=size, head_ids=(3,), seed=seed) for size, seed in ((4, 1), (20, 2), (7, 3))]
    together, alone = start(*rows), [start(row) for row in rows]
    for draw in (canvases.Canvas.draw_noise, canvases.Canvas.draw_levels):
        expected = torch.cat([draw(canvas) for canvas in alone], dim=1)
        assert torch.equal(draw(together), expected)


def test_kept_rows_go_on_as_they_stood() -> None:
    rows = [Row(num_free=size, head_ids=(3,), seed=seed) for size, seed in ((4, 1), (20, 2), (7, 3))]
    together, alone = start(*rows), start(rows[2])
    kept = together.select_rows([2])
    assert torch.equal(kept.ids_1L, alone.ids_1L)
    assert torch.equal(kept.draw_noise(), alone.draw_noise())
    assert kept.layout.rows == (rows[2],)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a + b\nreturn", "a + b"), ("a + b", "a + b"), ("", ""), ("\nx", ""), ("a\r\nb", "a"), ("a\rb", "a")],
)
def test_cut_to_line(text: str, expected: str) -> None:
    assert cut_to_line(text) == expected


@pytest.mark.parametrize(
    ("text", "suffix", "expected"),
    [
        ("x + 1\n    return y\n", "\n    return y\n\nprint(z)", "x + 1"),
        ("x + 1\n    retu", "\n    return y\n", "x + 1"),
        ("x + 1)", ")\nfoo", "x + 1)"),
        ("x + 1", "", "x + 1"),
        ("total\ndone()\nmore()", "\ndone()\n", "total"),
        ("total\ndone()\nmore()", "\ndone()", "total"),
    ],
)
def test_drop_suffix_copy(text: str, suffix: str, expected: str) -> None:
    assert drop_suffix_copy(text, suffix) == expected


def test_clamped_tokens_between_free_ones_stand_in_their_places() -> None:
    row = Row(num_free=4, opening_ids=(20,), between=((1, (21, 22)), (3, (23,))), head_ids=(24,), seed=3)
    canvas = start(row, Row(num_free=2, head_ids=(31,)))
    assert row.positions() == [20, None, 21, 22, None, None, 23, None, 24]
    assert canvas.layout.free_RM.tolist() == [[1, 4, 5, 7], [9, 10, 9, 9]]
    assert canvas.layout.fixed_1L[0, :9].tolist() == [True, False, True, True, False, False, True, False, True]
    assert canvas.ids_1L[0, canvas.layout.fixed_1L[0]].tolist() == [20, 21, 22, 23, 24, 31]
    canvas.replace(torch.full((1, 12), 7))
    assert canvas.ids_1L[0, :9].tolist() == [20, 7, 21, 22, 7, 7, 23, 7, 24]


def test_warm_tokens_and_limits_pass_over_clamped_ones() -> None:
    row = Row(num_free=3, between=((1, (21, 22)),), warm_ids=(40, 41), first_ids=(4,), last_ids=(6,))
    canvas = start(row)
    assert canvas.ids_1L[0, :4].tolist() == [40, 21, 22, 41]
    assert canvas.layout.limits == [(0, (4,)), (4, (6,))]


@pytest.mark.parametrize("between", [((0, (9,)),), ((3, (9,)),), ((2, (9,)), (1, (8,)))])
def test_tokens_between_stand_between_free_positions_in_order(between: tuple[tuple[int, tuple[int, ...]], ...]) -> None:
    with pytest.raises(ValueError, match=r"self\.between=.* must stand between free positions, in order"):
        Row(num_free=3, between=between)
