"""Candidates for one hole from every source: canvases, the causal mode, text found elsewhere.

Wires hypotheses, denoising and left-to-right writing; what comes out is not ranked yet. Called on the device thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile
from operator import attrgetter

import torch

from dgemma_engine.checkpoint.calibration import Calibration
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.diffusion import canvas as canvases
from dgemma_engine.diffusion.denoiser import Denoised, Denoiser, Guess, denoise
from dgemma_engine.diffusion.sampler import Sampler
from dgemma_engine.diffusion.step_executor import ExecutorFactory
from dgemma_engine.infill import autoregressive, hypotheses
from dgemma_engine.infill.candidate import Proposal, Proposed
from dgemma_engine.infill.hypotheses import Hypothesis, Reading
from dgemma_engine.infill.length_search import grid, surroundings_prior
from dgemma_engine.infill.observer import Observer
from dgemma_engine.infill.options import Recipe
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.postprocess.block_end import BlockEnd, whole_part
from dgemma_engine.postprocess.clean_candidate import offered
from dgemma_engine.prompt_lookup.candidates import Seed
from dgemma_engine.prompting.builder import Hole
from dgemma_engine.protocol.messages import CandidateSource, Context, Extent, Finish
from dgemma_engine.scheduling.cancellation import Cancel
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.tokenization.healed_start import HealedStart
from dgemma_engine.tokenization.tokenizer import Tokenizer
from dgemma_engine.tokenization.vocabulary_index import Opening, Spelling, closings, openings

# Slots that are tried together, by extent; a middle that does not fit is tried again in the next size.
_FIRST_SLOTS = {Extent.LINE: (8, 16), Extent.BLOCK: (32, 64)}
# Denoising steps for an answer in the editor (docs/decisions/0008).
_STEPS = {Extent.LINE: 4, Extent.BLOCK: 8}
# Ways to begin a middle that are put on the canvas.
_MOST_OPENINGS = 2
# Seeds that a canvas starts from.
_WARM_SEEDS = 2
# Forward passes for the left-to-right candidate of a request that has others.
_SPECULATIVE_PASSES = 2
# Tokens that the causal mode writes where the user waits for them: each costs a pass.
_MOST_ON_DEMAND = 128


OnStep = Callable[[int, int, Callable[[], list[Reading]]], None]
"""Told after every denoising step: steps of earlier canvases, of this one, and how to read the rows on it."""


class Proposer:
    """Makes candidates with one model.

    Args:
        model: in inference mode.
        tokenizer: of the same checkpoint.
        spelling: of its tokens.
        sampler: decisions of the denoising loop.
        calibration: bias of the length search.
        start_executor: starts the denoising steps of the same model.
    """

    def __init__(
        self,
        model: DiffusionModel,
        tokenizer: Tokenizer,
        spelling: Spelling,
        sampler: Sampler,
        calibration: Calibration,
        start_executor: ExecutorFactory,
    ) -> None:
        self._model = model
        self._start_executor = start_executor
        self._tokenizer = tokenizer
        self._spelling = spelling
        self._sampler = sampler
        self._calibration = calibration

    def num_steps(self, extent: Extent) -> int:
        """Returns the denoising steps of one canvas when time allows."""
        return min(self._sampler.num_steps, _STEPS[extent])

    def on_canvas(
        self,
        context: Context,
        hole: Hole,
        form: InfillFormat,
        cache: PromptCache,
        cancel: Cancel,
        *,
        recipe: Recipe,
        seeds: Sequence[Seed],
        num_steps: int,
        on_step: OnStep,
        recorder: Observer | None,
    ) -> Pieces[Proposed]:
        """Denoises the hole's hypotheses, block after block; each step is a piece.

        A middle that fits no slot is tried again in a larger one; one that does not fit the largest goes on in a
        further block behind it.

        Args:
            context: the question.
            hole: the same in token ids.
            form: how the checkpoint wants holes.
            cache: the prompt, or all but its end, which the first step adds; afterwards the prompt, if one was made.
            cancel: asked before every step.
            recipe: what to leave out.
            seeds: texts to start rows from.
            num_steps: steps per canvas.
            on_step: called after every step.
            recorder: told what the canvases do, if anything.
        """
        found, num_prompt = Proposed(), len(hole.prompt_ids)
        written, block = list[int](), hole.prompt_ids[cache.length :]
        sizes = self._first_sizes(context, form)
        try:
            while True:
                is_first = not found.steps
                begins = self._openings(hole) if not written else [Opening(given_ids=(), first_ids=None)]
                rows = self._hypotheses(context, hole, form, recipe, sizes, begins, seeds if is_first else ())
                reader = self._reader(context, hole, form, written)
                if recorder is not None:
                    recorder.began(rows, written, num_steps)
                denoising = self._denoising(hole, form, cache, rows, num_steps, block, recorder)
                block = []
                told = partial(on_step, found.steps)
                denoised = yield from self._denoise(context, form, cancel, rows, denoising, reader, told, recorder)
                found.finish, found.steps = denoised.finish, found.steps + denoised.steps
                readings = {index: reader(guess, rows[index]) for index, guess in denoised.guesses.items()}
                ended = [index for index, reading in readings.items() if reading.ended]
                is_over = bool(ended) or cancel.expired or cancel.cancelled or recipe.slot_tokens is not None
                larger = [] if form.fill_token_id is None else [size for size in form.slot_sizes if size > sizes[-1]]
                best = max(readings.values(), key=attrgetter("mean_logprob")) if readings else None
                room = (
                    context.max_middle_tokens - len(written) - (sizes[-1] if larger else len(best.ids) if best else 0)
                )
                # A middle of one line that fits the largest slot in no way is no middle.
                is_stuck = not larger and (context.extent is Extent.LINE or best is None or not best.ids)
                if is_over or is_stuck or room <= 0:
                    found.proposals += [
                        Proposal(
                            text=readings[index].text,
                            source=CandidateSource.DIFFUSION,
                            canvas_logprobs=readings[index].logprobs,
                            seed=rows[index].seed,
                        )
                        for index in ended or readings
                        if readings[index].text
                    ]
                    return found
                if larger:
                    sizes = larger[:1]
                elif best is not None:
                    block = best.ids
                    written += block
        finally:
            if cache.length >= num_prompt:
                cache.truncate(num_prompt)

    def from_left_to_right(
        self,
        context: Context,
        hole: Hole,
        form: InfillFormat,
        cache: PromptCache,
        cancel: Cancel,
        *,
        draft: str,
        recipe: Recipe,
        recorder: Observer | None,
    ) -> Pieces[Proposed]:
        """Writes one candidate with the causal mode; with a draft to check it takes a few passes, or gives up.

        Each pass is a piece.

        Args:
            context: the question.
            hole: the same in token ids.
            form: how the checkpoint wants holes.
            cache: the prompt; afterwards as before.
            cancel: asked before every pass.
            draft: the best candidate so far; empty if there is none.
            recipe: whether other candidates are wanted too.
            recorder: told what is written, if anything.
        """
        [opening, *_others] = self._openings(hole)
        start = None
        if form.healing == "token":
            opening = Opening(given_ids=(), first_ids=None)
            start = HealedStart(hole.boundary.begun, self._spelling)
        is_only = not draft
        most = _MOST_ON_DEMAND if context.on_demand else 32 if is_only else 24
        draft_ids = self._behind(opening, hole.boundary.begun + draft) if draft else []
        writing = recorder.writing(opening.given_ids, draft_ids) if recorder is not None else None
        written = yield from autoregressive.write(
            self._model,
            cache,
            hole.prompt_ids[-1],
            forced_ids=opening.given_ids,
            first_ids=opening.first_ids,
            draft_ids=draft_ids,
            banned_ids=self.banned_ids(hole, form),
            ends=self._ends(context, hole),
            max_tokens=recipe.slot_tokens or min(context.max_middle_tokens, most),
            max_passes=1_000 if is_only or context.on_demand else _SPECULATIVE_PASSES,
            cancel=cancel,
            recorder=writing,
            start=start,
        )
        found = Proposed(finish=Finish.STABLE if written.ended else Finish.STEP_LIMIT, passes=written.passes)
        if written.ended or is_only or context.on_demand:
            text = self._text(context, hole, written.ids)
            if context.on_demand and not written.ended and context.extent is Extent.BLOCK:
                text = whole_part(text, context.prefix)
            if text:
                found.proposals.append(Proposal(text=text, source=CandidateSource.LEFT_TO_RIGHT))
            if writing is not None:
                writing.offered(text)
        return found

    def length_confidences(
        self, context: Context, hole: Hole, form: InfillFormat, cache: PromptCache, lengths: Sequence[int]
    ) -> dict[int, list[float]]:
        """Returns the mean negative entropy of the first step at each length, nats, one per noise draw.

        Args:
            context: the question.
            hole: the same in token ids, of a format without a fill token.
            form: that format.
            cache: the prompt.
            lengths: in tokens; those that do not fit on the canvas are left out.
        """
        most = self._model.config.canvas_length
        finals = closings(hole.boundary.left, self._tokenizer, self._spelling)[:_MOST_OPENINGS]
        begins = self._openings(hole)
        rows = hypotheses.length_grid(hole, lengths, begins, finals, longer=False, most=most, seed=context.seed)
        denoising = self._denoising(hole, form, cache, rows, self.num_steps(context.extent))
        with torch.inference_mode():
            denoising.step()
        confidences: dict[int, list[float]] = {}
        for index, hypothesis in enumerate(rows):
            entropy = denoising.guess(index).entropy
            confidences.setdefault(hypothesis.row.num_free, []).append(-sum(entropy) / len(entropy))
        return confidences

    def banned_ids(self, hole: Hole, form: InfillFormat) -> list[int]:
        """Special tokens that may not stand in a hole: all but the ones that end it."""
        allowed = hole.end_ids | {form.more_token_id}
        return [token_id for token_id in self._tokenizer.special_ids if token_id not in allowed]

    def _banned_on_canvas(self, hole: Hole, form: InfillFormat, rows: Sequence[Hypothesis]) -> list[int]:
        """Where every row is exactly as long as its middle, no token ends one before the file does."""
        if all(row.exact for row in rows) and not hole.is_last:
            return list(self._tokenizer.special_ids)
        return self.banned_ids(hole, form)

    def _first_sizes(self, context: Context, form: InfillFormat) -> list[int]:
        wanted = [min(size, context.max_middle_tokens) for size in _FIRST_SLOTS[context.extent]]
        return sorted({form.slot_size(size) for size in wanted})

    def _openings(self, hole: Hole) -> list[Opening]:
        return openings(hole.boundary.begun, self._tokenizer, self._spelling)[:_MOST_OPENINGS]

    def _behind(self, opening: Opening, text: str) -> list[int]:
        """Returns the tokens of `text` behind those of an opening; none where it is cut into others."""
        ids, size = self._tokenizer.encode(text), len(opening.given_ids)
        return ids[size:] if tuple(ids[:size]) == opening.given_ids else []

    def _hypotheses(
        self,
        context: Context,
        hole: Hole,
        form: InfillFormat,
        recipe: Recipe,
        sizes: Sequence[int],
        begins: Sequence[Opening],
        seeds: Sequence[Seed],
    ) -> list[Hypothesis]:
        most = self._model.config.canvas_length
        if recipe.slot_tokens is not None:
            return hypotheses.known_length(hole, recipe.slot_tokens, begins, form, most=most, seed=context.seed)
        if form.fill_token_id is not None:
            rows = hypotheses.slots(hole, sizes, begins, form, most=most, seed=context.seed)
        else:
            lengths = grid(context.extent, min(context.max_middle_tokens, max(1, most - len(hole.head_ids))))
            finals = closings(hole.boundary.left, self._tokenizer, self._spelling)[:_MOST_OPENINGS]
            longer = context.extent is Extent.BLOCK and context.max_middle_tokens > lengths[-1]
            rows = hypotheses.length_grid(hole, lengths, begins, finals, longer=longer, most=most, seed=context.seed)
        return rows + hypotheses.warm(
            hole, seeds[:_WARM_SEEDS], self._tokenizer.encode, form, most=most, seed=context.seed
        )

    def _denoise(
        self,
        context: Context,
        form: InfillFormat,
        cancel: Cancel,
        rows: list[Hypothesis],
        denoising: Denoiser,
        reader: Callable[[Guess, Hypothesis], Reading],
        on_step: Callable[[int, Callable[[], list[Reading]]], None],
        recorder: Observer | None,
    ) -> Pieces[Denoised]:
        def readings() -> dict[int, Reading]:
            return {index: reader(denoising.guess(index), rows[index]) for index in denoising.live}

        settled: dict[int, Reading] = {}

        def said() -> list[Reading]:
            """What the rows say, those included that settled and left."""
            live = readings()
            settled.update({index: live[index] for index in denoising.finished})
            return list((settled | live).values())

        def stepped(denoising: Denoiser) -> None:
            if recorder is not None:
                recorder.read(readings())
            on_step(denoising.steps, said)

        def choose(denoising: Denoiser) -> Sequence[int]:
            if form.fill_token_id is not None:
                return hypotheses.promising(readings(), hypotheses.KEPT_ROWS)
            lengths = sorted({hypothesis.row.num_free for hypothesis in rows if hypothesis.seed is None})
            prior = surroundings_prior(
                lengths,
                context.prefix,
                context.suffix,
                extent=context.extent,
                count_tokens=lambda text: len(self._tokenizer.encode(text)),
            )
            return hypotheses.likely_lengths(
                rows,
                denoising,
                prior,
                bias=self._calibration.bias,
                prior_weight=self._calibration.prior_weight,
                count=hypotheses.KEPT_ROWS,
            )

        return denoise(
            denoising,
            cancel=cancel,
            on_step=stepped,
            choose=choose if len(rows) > hypotheses.KEPT_ROWS else None,
        )

    def _denoising(
        self,
        hole: Hole,
        form: InfillFormat,
        cache: PromptCache,
        rows: Sequence[Hypothesis],
        num_steps: int,
        block: Sequence[int] = (),
        recorder: Observer | None = None,
    ) -> Denoiser:
        device = self._model.device
        canvas = canvases.start([hypothesis.row for hypothesis in rows], self._sampler.noise, device)
        sampler = replace(self._sampler, num_steps=num_steps)
        banned_ids = torch.tensor(self._banned_on_canvas(hole, form, rows), dtype=torch.int64, device=device)
        executor = self._start_executor(cache, canvas, sampler, suppressed_ids=banned_ids, block_ids=block)
        return Denoiser(executor, sampler, observer=recorder)

    def _ends(self, context: Context, hole: Hole) -> Callable[[int], bool]:
        if context.extent is Extent.BLOCK and context.on_demand:
            leaves = BlockEnd(context.prefix, self._spelling.text_of, least_column=context.least_column)
            return lambda token_id: token_id in hole.end_ids or leaves(token_id)
        if context.extent is Extent.BLOCK:
            return lambda token_id: token_id in hole.end_ids
        breaks = self._spelling.with_line_break
        return lambda token_id: token_id in hole.end_ids or token_id in breaks

    def _reader(
        self, context: Context, hole: Hole, form: InfillFormat, written: Sequence[int]
    ) -> Callable[[Guess, Hypothesis], Reading]:
        end_ids = hole.end_ids
        if context.extent is Extent.LINE:
            end_ids |= self._spelling.with_line_break
        before = tuple(written)
        return lambda guess, hypothesis: hypotheses.read(
            guess, hypothesis, end_ids, form, lambda ids: self._text(context, hole, [*before, *ids])
        )

    def _text(self, context: Context, hole: Hole, ids: Sequence[int]) -> str:
        if context.extent is Extent.BLOCK and context.on_demand:
            leaves = BlockEnd(context.prefix, self._spelling.text_of, least_column=context.least_column)
            ids = [*takewhile(lambda token_id: not leaves(token_id), ids)]
        return offered(
            self._tokenizer.decode(list(ids)),
            hole.boundary,
            prefix=context.prefix,
            suffix=context.suffix,
            one_line=context.extent is Extent.LINE,
        )
