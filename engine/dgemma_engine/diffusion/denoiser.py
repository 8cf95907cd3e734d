"""The denoising loop: wires the model to the policies and does no maths of its own.

Shape legend: R rows, L positions of all rows together, M positions of the longest free part, N judged positions (those
whose vocabulary is looked at), D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dgemma_engine.diffusion.canvas import Canvas
from dgemma_engine.diffusion.sampler import Belief, ClampedBelief, Sampler, confidence, sample
from dgemma_engine.diffusion.token_distribution import Believing
from dgemma_engine.model import attention_masks
from dgemma_engine.model.attention_masks import ALL_VISIBLE
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import KVCache
from dgemma_engine.protocol.messages import Finish
from dgemma_engine.scheduling.cancellation import Cancel
from dgemma_engine.scheduling.cooperative import Pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """What a row says after a step.

    Attributes:
        ids: best token of each free position.
        confidence: their probabilities at temperature 1.
        entropy: nats at each free position, at the temperature of the step.
        steps: denoising steps the row has made.
    """

    ids: list[int]
    confidence: list[float]
    entropy: list[float]
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoised:
    """Where a run ended.

    Attributes:
        finish: STABLE (every row that was kept), STEP_LIMIT, DEADLINE or CANCELLED.
        guesses: by index of the row; a row that was given up keeps its last guess, one that made no step has none.
        steps: passes over the canvas.
    """

    finish: Finish
    guesses: dict[int, Guess]
    steps: int


class Run(Protocol):
    """Rows on their way, whatever makes their steps: `Denoising`, or `GraphDenoising` on a GPU."""

    @property
    def steps(self) -> int:
        """Steps made."""
        ...

    @property
    def num_steps(self) -> int:
        """Most steps; the temperature schedule is spread over them."""
        ...

    @property
    def live(self) -> list[int]:
        """Indices of the rows still on the canvas."""
        ...

    @property
    def finished(self) -> list[int]:
        """Rows whose best guess stood still and was sure at the last step."""
        ...

    def step(self) -> None:
        """Looks and judges."""
        ...

    def look(self) -> None:
        """Runs the model over the canvas: the first part of a step, and the longer one."""
        ...

    def judge(self) -> None:
        """Judges every position by the last look: the second part of a step."""
        ...

    def guess(self, index: int) -> Guess:
        """Returns what row `index` said at the last step; it must have been on the canvas then."""
        ...

    def keep(self, indices: Sequence[int]) -> None:
        """Lets all rows but `indices`, at least one, leave the canvas."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The last look at the rows that were then on the canvas.

    Attributes:
        live: their indices, in the order of the canvas.
        belief: of every judged position.
        temperature: of the step.
        free_RM: judged positions of each row's free part; filled up with its first one.
        num_free: how many of them count.
        finished: rows whose best guess stood still and was sure.
    """

    live: list[int]
    belief: Belief
    temperature: float
    free_RM: Tensor
    num_free: list[int]
    finished: list[int]


class Observer(Protocol):
    """Told what a step did; changes nothing."""

    def judged(self, judgement: Judgement, canvas: Canvas) -> None:
        """Takes note of what the model believes of a canvas."""
        ...

    def advanced(self, accepted_RM: Tensor, canvas: Canvas) -> None:
        """Takes note of which tokens stay, and of the next canvas, of the same rows."""
        ...


class Denoising:
    """Rows on their way; finished and given up ones leave the canvas.

    Every position is judged anew at every step; what is not accepted is replaced by noise, and clamped positions are
    rewritten after that. The answer is the best guess of the last step, not the sampled canvas.

    Args:
        model: its canvas mode is called once a step.
        cache: the prompt; only read.
        canvas: changed in place.
        sampler: the decisions; its `num_steps` are the steps really given.
        banned_ids: token ids that may not appear at any position, int64 [any]; may be empty.
        block_ids: tokens that the first step adds to the cache in the same pass: the block before this one.
        observer: told what every step did; None costs nothing.
    """

    def __init__(
        self,
        model: DiffusionModel,
        cache: KVCache,
        canvas: Canvas,
        sampler: Sampler,
        *,
        banned_ids: Tensor,
        block_ids: Sequence[int] = (),
        observer: Observer | None = None,
    ) -> None:
        self._model = model
        self._cache = cache
        self._canvas = canvas
        self._sampler = sampler
        self._believing = Believing(model, banned_ids=banned_ids)
        self._block_ids = list(block_ids)
        self._observer = observer
        self._num_past = cache.length + len(block_ids)
        self._soft_1LD: Tensor | None = None
        self._hidden_ND: Tensor | None = None
        self._earlier: list[Tensor] = []
        self._last: Judgement | None = None
        self._read: dict[int, Guess] = {}
        self._live = list(range(len(canvas.layout.rows)))
        self._advanced = True
        self.steps = 0
        self._settle()

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
        return self._last.finished if self._last else []

    def step(self) -> None:
        """Judges every position."""
        self.look()
        self.judge()

    def look(self) -> None:
        """Runs the model over the canvas: the first part of a step, and the longer one."""
        if not self._advanced:
            self._advance()
        # After the last step nobody asks what the model believes of clamped positions.
        is_last = self.steps + 1 >= self.num_steps
        self._hidden_ND = self._seen()[0, self._judged_N[: self._num_free] if is_last else self._judged_N]

    def judge(self) -> None:
        """Judges every position by the last look: the second part of a step."""
        assert self._hidden_ND is not None
        hidden_ND, self._hidden_ND = self._hidden_ND, None
        sampler, layout = self._sampler, self._canvas.layout
        temperature = sampler.schedule.temperature(sampler.num_steps - self.steps, sampler.num_steps)
        belief = self._believing(hidden_ND, temperature, self._barred, num_read=self._num_free)
        best_RM, entropy_RM = belief.best_N[self._free_RM], belief.entropy_N[self._free_RM]
        finished_R = sampler.stop.finished(self._earlier, best_RM, entropy_RM, layout.valid_RM)
        self._earlier = [*self._earlier, best_RM][-max(1, sampler.stop.stability) :]
        self._last = Judgement(
            live=self.live,
            belief=belief,
            temperature=temperature,
            free_RM=self._free_RM,
            num_free=[row.num_free for row in layout.rows],
            finished=[index for index, done in zip(self._live, finished_R.tolist(), strict=True) if done],
        )
        if self._observer is not None:
            self._observer.judged(self._last, self._canvas)
        self._read.clear()
        self._advanced = False
        self.steps += 1

    def guess(self, index: int) -> Guess:
        """Returns what row `index` said at the last step; it must have been on the canvas then."""
        if index not in self._read:
            assert self._last is not None
            place = self._last.live.index(index)
            free_M = self._last.free_RM[place, : self._last.num_free[place]]
            self._read[index] = Guess(
                ids=self._last.belief.best_N[free_M].tolist(),
                confidence=confidence(self._last.belief.scaled_NV[free_M], self._last.temperature).tolist(),
                entropy=self._last.belief.entropy_N[free_M].tolist(),
                steps=self.steps,
            )
        return self._read[index]

    def keep(self, indices: Sequence[int]) -> None:
        """Lets all rows but `indices`, at least one, leave the canvas."""
        places = [place for place, index in enumerate(self._live) if index in indices]
        if len(places) == len(self._live):
            return
        if not self._advanced:
            self._advance()
        row_L = self._canvas.layout.row_L
        stays_L = torch.isin(row_L, torch.tensor(places, device=row_L.device))
        self._soft_1LD = None if self._soft_1LD is None else self._soft_1LD[:, stays_L]
        self._canvas = self._canvas.kept(places)
        most = self._canvas.layout.valid_RM.shape[1]
        self._earlier = [best_RM[places, :most] for best_RM in self._earlier]
        self._live = [self._live[place] for place in places]
        self._settle()

    def _seen(self) -> Tensor:
        """Returns the model's view of the canvas, [1, L, D]; the block before it joins the cache once."""
        canvas_1L, block_ids, self._block_ids = self._canvas.ids_1L, self._block_ids, []
        if block_ids:
            return self._model.decode_after(
                torch.tensor([block_ids], device=canvas_1L.device),
                canvas_1L,
                self._cache,
                soft_BLD=self._soft_1LD,
                positions_BL=self._positions_1L,
                attention_masks=self._attention_masks,
            )
        return self._model.decode(
            canvas_1L,
            self._cache,
            soft_BLD=self._soft_1LD,
            positions_BL=self._positions_1L,
            attention_masks=self._attention_masks,
        )

    def _settle(self) -> None:
        """Computes what stays the same until a row leaves."""
        layout, sampler = self._canvas.layout, self._sampler
        self._attention_masks = ALL_VISIBLE
        if len(layout.rows) > 1:
            window = self._model.config.sliding_window
            self._attention_masks = attention_masks.packed(layout.row_L, num_past=self._num_past, sliding_window=window)
        self._positions_1L = (self._num_past + layout.offset_L)[None]
        free_L = ~layout.fixed_1L[0]
        free_N, fixed_N = free_L.nonzero()[:, 0], layout.fixed_1L[0].nonzero()[:, 0]
        self._num_free = len(free_N)
        # Free positions come first: of the others only the distributions are wanted.
        is_own = sampler.clamped_belief is ClampedBelief.OWN
        self._judged_N = torch.cat((free_N, fixed_N)) if is_own else free_N
        self._place_L = torch.empty_like(layout.row_L)
        self._place_L[torch.cat((free_N, fixed_N))] = torch.arange(len(free_L), device=free_L.device)
        self._free_RM = self._place_L[layout.free_RM]
        self._barred: list[tuple[int, Tensor]] = []
        for position, ids in layout.limits:
            barred_V = torch.ones(self._model.config.vocab_size, dtype=torch.bool, device=free_L.device)
            barred_V[list(ids)] = False
            self._barred.append((int(self._place_L[position]), barred_V))

    def _advance(self) -> None:
        """Turns the last judgement into the next canvas."""
        assert self._last is not None
        belief, canvas, layout = self._last.belief, self._canvas, self._canvas.layout
        levels_1L1 = canvas.draw_levels()
        accepted_RM = self._sampler.acceptance.accept(belief.entropy_N[self._free_RM], layout.valid_RM)
        ids_1L = canvas.draw_noise()
        kept = layout.free_RM[accepted_RM & layout.valid_RM]
        ids_1L[0, kept] = sample(belief.probs_NV[self._place_L[kept]], levels_1L1[0, kept])
        canvas.replace(ids_1L)
        if self._observer is not None:
            self._observer.advanced(accepted_RM, canvas)
        self._soft_1LD = self._softened(belief)
        self._advanced = True

    def _softened(self, belief: Belief) -> Tensor:
        """Returns what each position is told of the last step's belief."""
        soft_1ND = self._model.soft_embeddings(belief.probs_NV[None])
        rule, layout = self._sampler.clamped_belief, self._canvas.layout
        if rule is ClampedBelief.OWN:
            assert len(belief.probs_NV) == len(self._judged_N), "a step behind the last one"
            return soft_1ND[:, self._place_L]
        soft_1LD = soft_1ND.new_zeros(1, layout.row_L.shape[0], soft_1ND.shape[-1])
        if rule is ClampedBelief.GIVEN:
            soft_1LD = self._model.embed(layout.given_1L)
        soft_1LD[:, self._judged_N] = soft_1ND
        return soft_1LD


@torch.inference_mode()
def denoise(
    denoising: Run,
    *,
    cancel: Cancel,
    on_step: Callable[[Run], None],
    choose: Callable[[Run], Sequence[int]] | None = None,
) -> Pieces[Denoised]:
    """Steps until every row is finished, the steps are spent, or time is up; a step is two pieces.

    Args:
        denoising: the rows.
        cancel: asked before every step; a cancellation also in its middle.
        on_step: called after every step.
        choose: called after the first step; only the rows it returns go on.
    """
    guesses: dict[int, Guess] = {}
    finish = Finish.STEP_LIMIT
    while denoising.steps < denoising.num_steps:
        yield
        if cancel.cancelled or cancel.expired:
            finish = Finish.CANCELLED if cancel.cancelled else Finish.DEADLINE
            break
        denoising.look()
        yield
        if cancel.cancelled:
            # What was looked at and not judged is no step.
            finish = Finish.CANCELLED
            break
        denoising.judge()
        on_step(denoising)
        wanted = choose(denoising) if choose is not None and denoising.steps == 1 else denoising.live
        going_on = [index for index in wanted if index not in denoising.finished]
        for index in denoising.live:
            if index not in going_on:
                guesses[index] = denoising.guess(index)
        if not going_on:
            finish = Finish.STABLE
            break
        if denoising.steps < denoising.num_steps:
            denoising.keep(going_on)
    if denoising.steps:
        guesses |= {index: denoising.guess(index) for index in denoising.live if index not in guesses}
    return Denoised(finish=finish, guesses=guesses, steps=denoising.steps)
