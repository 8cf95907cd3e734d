"""Candidates from canvases: a hole's hypotheses, denoised together, block after block.

Wires hypotheses, length search and the denoising loop. Called on the device thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter

import torch

from dgemma_engine.diffusion import canvas as canvases
from dgemma_engine.diffusion.denoiser import Denoiser, denoise
from dgemma_engine.diffusion.sampler import Commitment, Sampler
from dgemma_engine.diffusion.step_executor import ExecutorFactory
from dgemma_engine.infill import hypotheses, length_search
from dgemma_engine.infill.candidate import MiddleEnds, Proposal, Proposals
from dgemma_engine.infill.hypotheses import Hypothesis, RowReading, draft
from dgemma_engine.infill.length_search import LengthPrior, LengthReading
from dgemma_engine.infill.task import InfillTask
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.prompt_lookup.candidates import Seed
from dgemma_engine.protocol.messages import CandidateSource, Extent
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tokenization.token_healing import Opening, closings, openings

# Slots that are tried together, by extent; a middle that does not fit is tried again in the next size.
_FIRST_SLOTS = {Extent.LINE: (8, 16), Extent.BLOCK: (32, 64)}
# Denoising steps for an answer in the editor (docs/decisions/0008), and where a committed token stays.
_STEPS = {Extent.LINE: 4, Extent.BLOCK: 8}
_FINAL_STEPS = {Extent.LINE: 8, Extent.BLOCK: 16}
# Rows that go on after the first step where a token stays: that step hardly tells the true length (docs/LOG.md).
_FINAL_ROWS = 16
# Ways to begin or to end a middle that are put on the canvas.
_MOST_EDGES = 2
# Seeds that a canvas starts from.
_WARM_SEEDS = 2


class CanvasCandidates:
    """Proposes candidates with one model's canvases.

    Args:
        model: in inference mode.
        sampler: decisions of the denoising loop.
        start_executor: starts the denoising steps of the same model.

    Attributes:
        num_steps: denoising steps of one canvas when time allows.
        num_steps_made: denoising steps so far, over all requests; readable from any thread.
    """

    def __init__(self, model: DiffusionModel, sampler: Sampler, start_executor: ExecutorFactory) -> None:
        self._model = model
        self._sampler = sampler
        self._start_executor = start_executor
        self._is_final = sampler.commitment is Commitment.FINAL
        self._kept_rows = _FINAL_ROWS if self._is_final else hypotheses.KEPT_ROWS
        self._resizing_ids = frozenset[int]() if sampler.resizing is None else sampler.resizing.ids
        steps = _FINAL_STEPS if self._is_final else _STEPS
        self.num_steps = {extent: min(sampler.num_steps, steps[extent]) for extent in Extent}
        self.num_steps_made = 0

    def propose(
        self, task: InfillTask, cache: PromptCache, cancel: Cancel, *, seeds: Sequence[Seed], num_steps: int
    ) -> Pieces[Proposals]:
        """Denoises the hole's hypotheses, block after block, step by step.

        A middle that fits no slot is tried again in a larger one; one that does not fit the largest goes on in a
        further block after it.

        Args:
            task: the request.
            cache: the prompt, or all but its end, which the first step adds; afterwards the prompt, if a step was made.
            cancel: asked before every step.
            seeds: texts to start rows from.
            num_steps: steps per canvas.
        """
        context, form, prompt_ids = task.context, task.form, task.hole.prompt_ids
        proposals, written, block = Proposals(), list[int](), prompt_ids[cache.num_prompt :]
        ends = task.ends()
        sizes = sorted({form.slot_size(min(size, context.max_middle_tokens)) for size in _FIRST_SLOTS[context.extent]})
        try:
            while True:
                rows = self._hypotheses(task, sizes, () if proposals.steps else seeds, is_first=not written)
                if task.observer is not None:
                    task.observer.began(rows, written, num_steps)
                denoising = self._denoising(task, cache, rows, num_steps, block)
                canvas = _CanvasReader(
                    source=self,
                    task=task,
                    ends=ends,
                    rows=rows,
                    written=written,
                    num_steps_before=proposals.steps,
                )
                denoised = yield from denoise(
                    denoising,
                    cancel=cancel,
                    on_step=canvas.on_step,
                    choose=canvas.choose if len(rows) > self._kept_rows else None,
                )
                proposals.finish, proposals.steps = denoised.finish, proposals.steps + denoised.steps
                readings = {
                    index: hypotheses.read(guess, rows[index], ends, form) for index, guess in denoised.guesses.items()
                }
                ended = [index for index, reading in readings.items() if reading.ended]
                is_over = bool(ended) or cancel.finish is not None or task.options.slot_tokens is not None
                larger = [] if form.fill_token_id is None else [size for size in form.slot_sizes if size > sizes[-1]]
                best = max(readings.values(), key=attrgetter("mean_logprob")) if readings else None
                num_next = sizes[-1] if larger else len(best.ids) if best else 0
                # A middle of one line that fits the largest slot in no way is no middle.
                is_stuck = not larger and (context.extent is Extent.LINE or best is None or not best.ids)
                if is_over or is_stuck or len(written) + num_next >= context.max_middle_tokens:
                    proposals.found += [
                        Proposal(
                            text=text,
                            source=CandidateSource.DIFFUSION,
                            canvas_logprobs=readings[index].logprobs,
                            seed=rows[index].seed,
                            is_cut=not readings[index].ended,
                        )
                        for index in ended or readings
                        if (text := task.text(readings[index].ids, before=written))
                    ]
                    return proposals
                block = []
                if larger:
                    sizes = larger[:1]
                elif best is not None:
                    block = best.ids
                    written += block
        finally:
            if cache.num_prompt >= len(prompt_ids):
                cache.truncate(cache.prompt_start + len(prompt_ids))

    def length_reading(self, task: InfillTask, cache: PromptCache, middle: str) -> LengthReading:
        """Returns what the search for a length reads, and the length that it should find.

        Args:
            task: the request, of a format without a fill token.
            cache: the prompt.
            middle: what stands in the hole.
        """
        rows = self._length_grid(task, self._lengths(task), longer=False)
        denoising = self._denoising(task, cache, rows, self.num_steps[task.context.extent])
        with torch.inference_mode():
            denoising.step()
        found = hypotheses.sureness(rows, denoising).items()
        confidences = {length: [sure for sure, _ in sureness] for length, sureness in found}
        boundary, first = task.hole.boundary, rows[0].row
        num_spelt = task.tokenizer.count(boundary.opening + middle + boundary.closing)
        num_given = len(first.opening_ids) + len(first.head_ids) - len(task.hole.head_ids)
        true_length = max(1, num_spelt - num_given)
        return LengthReading(true_length=true_length, confidences=confidences, prior=self._prior(task, confidences))

    def likely_lengths(self, task: InfillTask, rows: Sequence[Hypothesis], denoising: Denoiser) -> list[int]:
        """Returns the rows of the likeliest lengths after the first step, and those that started from a seed."""
        return hypotheses.likely_lengths(
            rows,
            denoising,
            self._prior(task, {hypothesis.row.num_free for hypothesis in rows if hypothesis.seed is None}),
            bias=task.calibration.bias,
            prior_weight=task.calibration.prior_weight,
            count=self._kept_rows,
        )

    def _prior(self, task: InfillTask, lengths: Iterable[int]) -> LengthPrior:
        """Returns the prior of rows, which take over what prefix and suffix gave up."""
        before, after, extent = task.hole.boundary.prefix, task.hole.boundary.suffix, task.context.extent
        count = task.tokenizer.count
        return length_search.surroundings_prior(sorted(lengths), before, after, extent=extent, count_tokens=count)

    def _lengths(self, task: InfillTask) -> tuple[int, ...]:
        """Returns the grid of a hole."""
        context = task.context
        longest = min(context.max_middle_tokens, max(1, self._model.config.canvas_length - len(task.hole.head_ids)))
        lengths = length_search.DENSE_GRID if self._is_final else length_search.GRID
        return length_search.grid(context.extent, longest, lengths)

    def _hypotheses(
        self, task: InfillTask, sizes: Sequence[int], seeds: Sequence[Seed], *, is_first: bool
    ) -> list[Hypothesis]:
        context, hole, form = task.context, task.hole, task.form
        most, seed = self._model.config.canvas_length, context.seed
        begins = [Opening(given_ids=(), first_ids=None)]
        if is_first:
            begins = openings(hole.boundary.opening, task.spelling)[:_MOST_EDGES]
        if task.options.slot_tokens is not None:
            return hypotheses.known_length(hole, task.options.slot_tokens, begins, form, most=most, seed=seed)
        if form.fill_token_id is not None:
            rows = hypotheses.slots(hole, sizes, begins, form, most=most, seed=seed)
        else:
            lengths = self._lengths(task)
            longer = context.extent is Extent.BLOCK and context.max_middle_tokens > lengths[-1]
            if self._resizing_ids:
                # The rows find their lengths by themselves.
                lengths, longer = sorted({min(size, lengths[-1]) for size in _FIRST_SLOTS[context.extent]}), False
            rows = self._length_grid(task, lengths, begins, longer=longer)
        if self._is_final or not seeds:
            # A seed's tokens would all be committed already: it is judged with the other candidates.
            return rows
        return rows + hypotheses.warm(hole, seeds[:_WARM_SEEDS], task.tokenizer.encode, form, most=most, seed=seed)

    def _length_grid(
        self, task: InfillTask, lengths: Sequence[int], begins: Sequence[Opening] | None = None, *, longer: bool
    ) -> list[Hypothesis]:
        hole, most = task.hole, self._model.config.canvas_length
        begins = begins or openings(hole.boundary.opening, task.spelling)[:_MOST_EDGES]
        finals = closings(hole.boundary.closing, task.spelling)[:_MOST_EDGES]
        edges, seed, is_random = (begins, finals), task.context.seed, not self._is_final
        return hypotheses.length_grid(hole, lengths, *edges, longer=longer, most=most, seed=seed, is_random=is_random)

    def _denoising(
        self,
        task: InfillTask,
        cache: PromptCache,
        rows: Sequence[Hypothesis],
        num_steps: int,
        block: Sequence[int] = (),
    ) -> Denoiser:
        device, given = self._model.device, [hypothesis.row for hypothesis in rows]
        if self._is_final:
            # What was typed limits the first token; as a token of the canvas it would stay.
            given = [replace(row, warm_ids=()) for row in given]
        canvas = canvases.start(given, self._sampler.noise, device)
        # Where every row is exactly as long as its middle, no token ends one before the file does.
        are_exact = all(row.exact for row in rows) and not task.hole.is_last
        banned = list(task.tokenizer.special_ids) if are_exact else task.banned_ids()
        kept = self._resizing_ids if task.options.slot_tokens is None else frozenset[int]()
        banned_ids = torch.tensor([one for one in banned if one not in kept], dtype=torch.int64, device=device)
        executor = self._start_executor(cache, canvas, self._sampler, suppressed_ids=banned_ids, block_ids=block)
        return Denoiser(executor, self._sampler, num_steps=num_steps, observer=task.observer)


@dataclass(slots=True, kw_only=True)
class _CanvasReader:
    """Reads the rows of one canvas, for drafts, for the observer, and to choose the rows that go on.

    Attributes:
        source: counts the steps; returns the likely lengths.
        task: the request.
        ends: tokens that end the middle.
        rows: the hypotheses on the canvas.
        written: tokens of earlier canvases.
        num_steps_before: steps of earlier canvases.
        settled: the last readings of rows that have left the canvas; they stay part of the draft.
    """

    source: CanvasCandidates
    task: InfillTask
    ends: MiddleEnds
    rows: Sequence[Hypothesis]
    written: Sequence[int]
    num_steps_before: int
    settled: dict[int, RowReading] = field(default_factory=dict[int, RowReading])

    def on_step(self, denoising: Denoiser) -> None:
        """Counts a step and passes its texts on to those that asked for them."""
        self.source.num_steps_made += 1
        task, observer = self.task, self.task.observer
        if observer is None and not (task.on_draft and task.context.drafts):
            return
        live = self.read(denoising)
        if observer is not None:
            observer.read(live, {index: task.text(one.ids, before=self.written) for index, one in live.items()})
        self.settled |= {index: live[index] for index in denoising.finished}
        if task.on_draft and task.context.drafts:
            best = max((self.settled | live).values(), key=attrgetter("mean_logprob"))
            text = task.text(best.ids, before=self.written)
            task.on_draft(
                draft(
                    task.context.drafts,
                    self.num_steps_before + denoising.steps,
                    best,
                    task.tokenizer.head(text, task.context.max_middle_tokens),
                    task.hole.boundary.opening,
                    task.spelling.text_of,
                    steps_limit=self.num_steps_before + denoising.num_steps,
                )
            )

    def choose(self, denoising: Denoiser) -> Sequence[int]:
        """Returns the rows that go on after the first step."""
        if self.task.form.fill_token_id is None:
            return self.source.likely_lengths(self.task, self.rows, denoising)
        return hypotheses.promising(self.read(denoising), hypotheses.KEPT_ROWS)

    def read(self, denoising: Denoiser) -> dict[int, RowReading]:
        """Returns what the rows on the canvas hold, by index."""
        form, rows = self.task.form, self.rows
        return {
            index: hypotheses.read(denoising.guess(index), rows[index], self.ends, form) for index in denoising.live
        }
