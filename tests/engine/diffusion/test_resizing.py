"""Rows that grow and shrink, on literal tokens: what each position of the next row takes its token from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dgemma_engine.diffusion import canvas as canvases
from dgemma_engine.diffusion.absorbing_mask import AbsorbingMask, EvenShare, LastShare
from dgemma_engine.diffusion.canvas import Row
from dgemma_engine.diffusion.resizing import Resizing
from dgemma_engine.diffusion.sampler import Commitment, Sampler, StableAndConfident, TemperatureSchedule

EXPAND, DELETE, MASK = 90, 91, 99
RESIZING = Resizing(expand_id=EXPAND, delete_id=DELETE, most_free=6)


@pytest.mark.parametrize(
    ("ids", "places"),
    [
        ([1, MASK, 2], [0, 1, 2]),
        ([1, EXPAND, 2], [0, None, None, 2]),
        # A deletion takes masks after it along, and leaves what is committed.
        ([MASK, DELETE, MASK, 2, MASK], [0, 3]),
        ([DELETE, MASK, DELETE], [0]),
        # The masks that are made of an expansion after a deletion stay.
        ([DELETE, EXPAND], [None, None]),
        # Room for one of two expansions; a deletion makes room.
        ([1, EXPAND, 2, 3, EXPAND], [0, None, None, 2, 3, None]),
        ([EXPAND, 2, 3, 4, 5, 6], [None, 1, 2, 3, 4, 5]),
        ([EXPAND, 2, 3, 4, 5, DELETE], [None, None, 1, 2, 3, 4]),
        ([EXPAND, 2, 3, 4, 5, 6, 7, 8], [None, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_places_of_the_next_row(ids: list[int], places: list[int | None]) -> None:
    assert RESIZING.places(ids, MASK) == places


def test_canvas_moves_tokens_and_keeps_what_is_clamped() -> None:
    rows = [Row(num_free=3, opening_ids=(7,), head_ids=(8, 9)), Row(num_free=2, head_ids=(5,))]
    noise = AbsorbingMask(mask_id=MASK)
    canvas = canvases.start(rows, noise, torch.device("cpu"))
    canvas.replace(torch.tensor([[0, 1, 2, 3, 0, 0, 4, 6, 0]]))
    resized, source_L = canvas.resized([[0, None, None, 2], [1]])
    assert resized.ids_1L.tolist() == [[7, 1, MASK, MASK, 3, 8, 9, 6, 5]]
    assert source_L.tolist() == [-1, 1, -1, -1, 3, -1, -1, 7, -1]
    assert [row.num_free for row in resized.layout.rows] == [4, 1]
    assert resized.layout.row_L.tolist() == [0] * 7 + [1] * 2
    assert canvas.ids_1L.tolist() == [[7, 1, 2, 3, 8, 9, 4, 6, 5]], "the original canvas is unchanged"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"most_free": 0}, r"self\.most_free=0 must be at least 1"),
        ({"expand_id": DELETE}, r"self\.expand_id=91 must differ from self\.delete_id=91"),
    ],
)
def test_invalid_values_are_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(RESIZING, **values)


def test_sampler_whose_rows_change_their_length_keeps_tokens_and_compares_no_steps() -> None:
    sampler = Sampler(
        num_steps=1,
        schedule=TemperatureSchedule(t_min=1.0, t_max=1.0),
        acceptance=EvenShare(by="entropy"),
        noise=AbsorbingMask(mask_id=MASK),
        stop=LastShare(expand_id=EXPAND),
        commitment=Commitment.FINAL,
        resizing=RESIZING,
    )
    for wrong in (
        {"commitment": Commitment.DRAWN},
        {"stop": StableAndConfident(num_earlier=1, confidence=0.1)},
    ):
        with pytest.raises(ValueError, match="rows change their length only where tokens stay"):
            replace(sampler, **wrong)
