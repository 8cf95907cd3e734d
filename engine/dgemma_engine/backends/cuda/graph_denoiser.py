"""The denoising loop's steps on a device: what `Denoising` does, by work that is captured once and replayed.

The host keeps what is small: which rows are on the canvas, their random draws, the temperature, and the stop rule, for
which it reads three short rows per step. All else stays on the device. From the same seeds it gives the tokens and the
number of steps that `Denoising` gives. Shape legend as in `diffusion/denoiser.py`; F sets of banned tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dgemma_engine.backends.cuda.graph_steps import CapturedSteps
from dgemma_engine.backends.cuda.step_buffers import NOBODY, StepShape
from dgemma_engine.diffusion.canvas import Canvas, Layout
from dgemma_engine.diffusion.denoiser import Guess
from dgemma_engine.diffusion.sampler import Sampler
from dgemma_engine.model.kv_cache import PromptCache

_CPU = torch.device("cpu")
_NOTHING_BANNED = -1


class GraphDenoising:
    """Rows on their way, see `denoiser.Run`.

    Args:
        steps: of the model; runs that take turns each keep their canvas while another has the tensors.
        cache: the prompt; only read, but for the block.
        canvas: its rows, first tokens and generators.
        sampler: the decisions; its `num_steps` are the steps really given.
        banned_ids: token ids that may not appear at any position, int64 [any]; may be empty.
        block_ids: tokens that the first step adds to the cache in the same pass: the block before this one.
    """

    def __init__(
        self,
        steps: CapturedSteps,
        cache: PromptCache,
        canvas: Canvas,
        sampler: Sampler,
        *,
        banned_ids: Tensor,
        block_ids: Sequence[int] = (),
    ) -> None:
        self._captured = steps
        self._cache = cache
        self._canvas = canvas
        self._sampler = sampler
        self._banned_V = torch.zeros(steps.model.config.vocab_size, dtype=torch.bool)
        self._banned_V[banned_ids.cpu()] = True
        self._block_ids = list(block_ids)
        self._live = list(range(len(canvas.layout.rows)))
        self._earlier: list[Tensor] = []
        self._finished: list[int] = []
        self._guesses: dict[int, Guess] = {}
        self._advanced = True
        self._told: Callable[[], Tensor] | None = None
        self._aside: tuple[Tensor, Tensor] | None = None
        self.steps = 0
        steps.give_to(self)
        self._settle(canvas.ids_1L[0], None)

    @property
    def live(self) -> list[int]:
        """Indices of the rows still on the canvas."""
        return list(self._live)

    @property
    def num_steps(self) -> int:
        """Most steps; the temperature schedule is spread over them."""
        return self._sampler.num_steps

    @property
    def finished(self) -> list[int]:
        """Rows whose best guess stood still and was sure at the last step."""
        return list(self._finished)

    def step(self) -> None:
        """Looks and judges."""
        self.look()
        self.judge()

    def look(self) -> None:
        """Runs the model over the canvas: the first part of a step, and the longer one."""
        self._take_over()
        if not self._advanced:
            self._advance()
        sampler, view, length = self._sampler, self._view, len(self._layout.row_L)
        view.levels_L[:length].copy_(self._canvas.draw_levels()[0, :, 0])
        view.temperature_1.fill_(sampler.schedule.temperature(sampler.num_steps - self.steps, sampler.num_steps))
        self._captured.look(self._shape, view, self._cache)
        self._told = self._captured.read(view)
        # What may replace these tokens is drawn while the device works.
        view.noise_L[:length].copy_(self._canvas.draw_noise()[0])
        if self._block_ids:
            self._cache.advance(len(self._block_ids))
            self._block_ids = []
            self._place()
        self._advanced = False

    def judge(self) -> None:
        """Judges every position by the last look: the second part of a step."""
        assert self._told is not None
        told_3L, self._told = self._told(), None
        self.steps += 1
        self._judge(told_3L[:, : len(self._layout.row_L)])

    @torch.inference_mode()
    def set_aside(self) -> None:
        """Keeps in memory of its own what another run is about to overwrite."""
        if not self._advanced:
            self._advance()
        length = len(self._layout.row_L)
        self._aside = self._view.ids_L[:length].clone(), self._view.soft_LD[:length].clone()

    def guess(self, index: int) -> Guess:
        """Returns what row `index` said at the last step; it must have been on the canvas then."""
        return self._guesses[index]

    def keep(self, indices: Sequence[int]) -> None:
        """Lets all rows but `indices`, at least one, leave the canvas."""
        places = [place for place, index in enumerate(self._live) if index in indices]
        if len(places) == len(self._live):
            return
        self._take_over()
        if not self._advanced:
            self._advance()
        staying = torch.isin(self._layout.row_L, torch.tensor(places)).nonzero()[:, 0].to(self._view.ids_L.device)
        # Taken out before the buffers get their new meaning: both shapes lie in the same memory.
        ids_L, soft_LD = self._view.ids_L[staying], self._view.soft_LD[staying]
        self._canvas = self._canvas.kept(places)
        self._live = [self._live[place] for place in places]
        most = self._canvas.layout.valid_RM.shape[1]
        self._earlier = [best_RM[places, :most] for best_RM in self._earlier]
        self._settle(ids_L, soft_LD)

    def _take_over(self) -> None:
        """Makes the tensors that all runs share this run's own again."""
        self._captured.give_to(self)
        if self._aside is not None:
            (ids_L, soft_LD), self._aside = self._aside, None
            self._settle(ids_L, soft_LD)

    def _advance(self) -> None:
        """Turns the last judgement into the next canvas."""
        self._captured.advance(self._shape, self._view, self._sampler)
        self._advanced = True

    def _judge(self, told_3L: Tensor) -> None:
        """Reads what the rows say, and which of them are done."""
        layout, stop = self._layout, self._sampler.stop
        best_RM = told_3L[0].long()[layout.free_RM]
        entropy_RM = told_3L[1].view(torch.float32)[layout.free_RM]
        confidence_RM = told_3L[2].view(torch.float32)[layout.free_RM]
        finished_R = stop.finished(self._earlier, best_RM, entropy_RM, layout.valid_RM)
        self._earlier = [*self._earlier, best_RM][-max(1, stop.stability) :]
        self._finished = [index for index, done in zip(self._live, finished_R.tolist(), strict=True) if done]
        self._guesses = {
            index: Guess(
                ids=best_RM[place, : row.num_free].tolist(),
                confidence=confidence_RM[place, : row.num_free].tolist(),
                entropy=entropy_RM[place, : row.num_free].tolist(),
                steps=self.steps,
            )
            for place, (index, row) in enumerate(zip(self._live, layout.rows, strict=True))
        }

    @torch.inference_mode()
    def _settle(self, ids_L: Tensor, soft_LD: Tensor | None) -> None:
        """Writes all that stays the same until a row leaves, and where the rows stand."""
        self._layout = layout = Layout(self._canvas.layout.rows, _CPU)
        sets, set_of_L = self._bans()
        self._num_sets = len(sets)
        self._place()
        view, length = self._view, len(layout.row_L)
        # What is left over of another canvas behind this one must belong to nobody.
        for tensor, values, filler in (
            (view.ids_L, ids_L, 0),
            (view.given_L, layout.given_1L[0], 0),
            (view.fixed_L, layout.fixed_1L[0], True),
            (view.row_L, layout.row_L, NOBODY),
            (view.offset_L, layout.offset_L, 0),
            (view.set_of_L, set_of_L, _NOTHING_BANNED),
        ):
            tensor[:length].copy_(values)
            tensor[length:].fill_(filler)
        view.soft_LD.zero_()
        if soft_LD is not None:
            view.soft_LD[:length].copy_(soft_LD)
        num_rows, most = layout.free_RM.shape
        view.free_RL.fill_(self._shape.length)
        view.valid_RL.fill_(value=False)
        view.free_RL[:num_rows, :most].copy_(layout.free_RM.where(layout.valid_RM, self._shape.length))
        view.valid_RL[:num_rows, :most].copy_(layout.valid_RM)
        for banned_V, target_V in zip(sets, view.banned_FV, strict=False):
            target_V.copy_(banned_V)

    def _place(self) -> None:
        """Chooses the tensors that fit the canvas, and says how long the prompt is."""
        layout, num_block = self._layout, len(self._block_ids)
        self._shape = StepShape.holding(len(layout.rows), len(layout.row_L), num_block)
        self._view = view = self._captured.view(self._shape, self._num_sets)
        view.num_stored_1.fill_(self._cache.length)
        view.num_before_1.fill_(self._cache.length + num_block)
        if num_block:
            view.block_T.copy_(torch.tensor(self._block_ids))

    def _bans(self) -> tuple[list[Tensor], Tensor]:
        """Returns the sets of tokens that some position may not hold, [V] each, and which of them holds where, [L]."""
        limits: dict[int, list[tuple[int, ...]]] = {}
        for position, ids in self._layout.limits:
            limits.setdefault(position, []).append(ids)
        sets, known = [self._banned_V], dict[tuple[tuple[int, ...], ...], int]()
        set_of_L = torch.zeros(len(self._layout.row_L), dtype=torch.int32)
        for position, allowed in limits.items():
            key = tuple(allowed)
            if key not in known:
                known[key] = len(sets)
                barred_V = torch.zeros_like(self._banned_V)
                for ids in key:
                    others_V = torch.ones_like(self._banned_V)
                    others_V[list(ids)] = False
                    barred_V |= others_V
                whole_V = barred_V | self._banned_V
                # Every position keeps a token.
                sets.append(barred_V if bool(whole_V.all()) else whole_V)
            set_of_L[position] = known[key]
        return sets, set_of_L
