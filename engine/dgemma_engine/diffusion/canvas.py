"""Canvases: given and free positions, several rows packed one after the other. Token ids in, token ids out.

A row is one hypothesis about a hole: [clamped opening][free positions][clamped head of the suffix]; a row with several
holes has clamped tokens between its free positions too. Rows of one canvas do not attend to each other; they share a
pass over the same prompt.

Shape legend: R rows, L positions of all rows together, M positions of the longest free part.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dgemma_engine.diffusion.sampler import Noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One hypothesis.

    Attributes:
        num_free: positions the sampler decides, at least 1.
        head_ids: clamped tokens after them; empty when nothing follows the hole.
        opening_ids: clamped tokens before them: the required beginning of the middle.
        between: clamped tokens between free positions: how many of those stand before them, and the tokens, in order.
        first_ids: tokens the first free position may take; None allows any.
        last_ids: tokens the last free position may take; None allows any.
        warm_ids: tokens that free positions start from, the first one first; the others start from noise.
        seed: of the row's own random draws, so that a row does not depend on its neighbours.
    """

    num_free: int
    head_ids: tuple[int, ...] = ()
    opening_ids: tuple[int, ...] = ()
    between: tuple[tuple[int, tuple[int, ...]], ...] = ()
    first_ids: tuple[int, ...] | None = None
    last_ids: tuple[int, ...] | None = None
    warm_ids: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_free < 1:
            raise ValueError(f"{self.num_free=} must be at least 1")
        if len(self.warm_ids) > self.num_free:
            raise ValueError(f"{len(self.warm_ids)=} must not be more than {self.num_free=}")
        places = [0, *(place for place, _ids in self.between), self.num_free]
        if self.between and any(before >= after for before, after in itertools.pairwise(places)):
            raise ValueError(f"{self.between=} must stand between free positions, in order")

    def positions(self) -> list[int | None]:
        """Returns the given token of each position, None where it is free."""
        row: list[int | None] = [*self.opening_ids, *[None] * self.num_free, *self.head_ids]
        for place, ids in reversed(self.between):
            at = len(self.opening_ids) + place
            row[at:at] = ids
        return row


class CanvasLayout:
    """Positions of the parts of packed rows.

    Args:
        rows: at least one.
        device: of the tensors.

    Attributes:
        rows: the hypotheses.
        lengths: positions of each row in all.
        row_L: which row a position belongs to, int64.
        offset_L: its distance from its row's first position, int64.
        fixed_1L: bool, True where text is given and never resampled.
        given_1L: the given tokens at fixed positions, 0 elsewhere.
        free_RM: positions of each row's free part, int64; padded with its first one.
        valid_RM: bool, False where `free_RM` is padded.
        limits: positions at which only some tokens may stand, with those tokens.
    """

    def __init__(self, rows: Sequence[Row], device: torch.device) -> None:
        self.rows, self.lengths = tuple(rows), list[int]()
        most = max(row.num_free for row in rows)
        row_of, offsets, given = list[int](), list[int](), list[int]()
        fixed, valid = list[bool](), list[list[bool]]()
        free = list[list[int]]()
        self.limits: list[tuple[int, tuple[int, ...]]] = []
        for index, row in enumerate(rows):
            begin, tokens = len(fixed), row.positions()
            self.lengths.append(len(tokens))
            row_of += [index] * len(tokens)
            offsets += range(len(tokens))
            fixed += [token is not None for token in tokens]
            given += [token or 0 for token in tokens]
            places = [begin + offset for offset, token in enumerate(tokens) if token is None]
            free.append(places + [places[0]] * (most - len(places)))
            valid.append([step < row.num_free for step in range(most)])
            if row.first_ids is not None:
                self.limits.append((places[0], row.first_ids))
            if row.last_ids is not None:
                self.limits.append((places[-1], row.last_ids))
        self.row_L = torch.tensor(row_of, device=device)
        self.offset_L = torch.tensor(offsets, device=device)
        self.fixed_1L = torch.tensor([fixed], device=device)
        self.given_1L = torch.tensor([given], device=device)
        self.free_RM = torch.tensor(free, device=device)
        self.valid_RM = torch.tensor(valid, device=device)


class Canvas:
    """Rows being denoised.

    Args:
        layout: of the rows.
        ids_1L: their tokens, int64; given ones are written over them.
        noise: replaces tokens that are not accepted.
        generators: one per row, in the same order; every random draw of a row comes from its own.
    """

    def __init__(
        self, layout: CanvasLayout, ids_1L: Tensor, noise: Noise, generators: Sequence[torch.Generator]
    ) -> None:
        self.layout = layout
        self._noise = noise
        self._generators = tuple(generators)
        self.replace(ids_1L)

    def select_rows(self, indices: Sequence[int]) -> Canvas:
        """Returns a canvas of some of the rows, each with its present tokens and its own generator."""
        rows, row_L = self.layout.rows, self.layout.row_L
        return Canvas(
            CanvasLayout([rows[index] for index in indices], self.ids_1L.device),
            torch.cat([self.ids_1L[:, row_L == index] for index in indices], dim=1),
            self._noise,
            [self._generators[index] for index in indices],
        )

    def resized(self, places: Sequence[Sequence[int | None]]) -> tuple[Canvas, Tensor]:
        """Returns a canvas of the same rows with other free positions, each with its row's generator.

        Args:
            places: for each row, and each of its future free positions, the present free position that its token comes
                from; None is noise. Nothing is clamped between free positions.

        Returns:
            The canvas, and where each of its free positions stood on this one, [L] int64; -1 where none did, and at
            clamped positions.
        """
        rows, source = list[Row](), list[int]()
        for row, free, taken in zip(self.layout.rows, self.layout.free_RM.tolist(), places, strict=True):
            assert not row.between, "what is clamped between free positions cannot be moved"
            rows.append(replace(row, num_free=len(taken), warm_ids=()))
            source += [-1] * len(row.opening_ids)
            source += [-1 if place is None else free[place] for place in taken]
            source += [-1] * len(row.head_ids)
        layout = CanvasLayout(rows, self.ids_1L.device)
        resized = Canvas(layout, layout.given_1L, self._noise, self._generators)
        source_L = torch.tensor(source, device=self.ids_1L.device)
        resized.replace(torch.where(source_L >= 0, self.ids_1L[:, source_L], resized.draw_noise()))
        return resized, source_L

    def replace(self, ids_1L: Tensor) -> None:
        """Writes new tokens to free positions and the given ones everywhere else."""
        self.ids_1L = torch.where(self.layout.fixed_1L, self.layout.given_1L, ids_1L)

    def draw_levels(self) -> Tensor:
        """Draws a uniform number for every position, row by row: [1, L, 1], float32."""
        draws = [
            torch.rand(length, generator=generator, device=generator.device)
            for length, generator in zip(self.layout.lengths, self._generators, strict=True)
        ]
        return torch.cat(draws)[None, :, None]

    def draw_noise(self) -> Tensor:
        """Draws a random token for every position, row by row: [1, L], int64."""
        draws = [
            self._noise.draw(1, length, generator)
            for length, generator in zip(self.layout.lengths, self._generators, strict=True)
        ]
        return torch.cat(draws, dim=1)


def start(
    rows: Sequence[Row], noise: Noise, device: torch.device, generators: Sequence[torch.Generator] | None = None
) -> Canvas:
    """Returns a canvas whose free positions hold noise, or the tokens they start from.

    Args:
        rows: the hypotheses, at least one.
        noise: where free tokens come from.
        device: of the canvas.
        generators: one per row; by default new ones, seeded as the rows say.
    """
    if generators is None:
        generators = [torch.Generator(device).manual_seed(row.seed) for row in rows]
    layout = CanvasLayout(rows, device)
    canvas = Canvas(layout, layout.given_1L, noise, generators)
    ids_1L = canvas.draw_noise()
    for row, free_M in zip(rows, layout.free_RM, strict=True):
        if row.warm_ids:
            ids_1L[0, free_M[: len(row.warm_ids)]] = torch.tensor(row.warm_ids, device=device)
    canvas.replace(ids_1L)
    return canvas
