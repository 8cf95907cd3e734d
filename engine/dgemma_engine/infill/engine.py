"""A loaded model that fills holes: `Context` in, `Infill` out.

Wires tokens, prompt cache, candidates and ranking for one request at a time, and keeps the deadline; it is called on
one thread only. Knows nothing of sockets, queues or editors.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch

from dgemma_engine.backends.select import executor_factory
from dgemma_engine.checkpoint.calibration import Calibration
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.diffusion.sampler import Sampler
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.family import LoadOptions
from dgemma_engine.families.registry import family_of
from dgemma_engine.infill.candidate import Proposal, Proposed, merged
from dgemma_engine.infill.generator import Proposer
from dgemma_engine.infill.hypotheses import Reading
from dgemma_engine.infill.observer import Observer
from dgemma_engine.infill.oom import freeing_on_exhaustion
from dgemma_engine.infill.options import DEFAULT, Decode, Recipe
from dgemma_engine.infill.preview import draft
from dgemma_engine.infill.ranker import Ranked, rank, unjudged
from dgemma_engine.infill.result import Search
from dgemma_engine.infill.warmup import first_questions
from dgemma_engine.model.devices import limit_threads, pick_device
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.prompt_lookup.candidates import Seed, SeedStore
from dgemma_engine.prompting.builder import Hole, dig
from dgemma_engine.prompting.prefix_cache import JOINED_TOKENS, PromptStore
from dgemma_engine.prompting.suffix_cache import SuffixStore
from dgemma_engine.protocol.messages import CandidateSource, Context, Draft, Infill, OnDraft
from dgemma_engine.scheduling.cancellation import Cancel
from dgemma_engine.scheduling.cooperative import Pieces, finished
from dgemma_engine.scheduling.duration_estimator import Pace
from dgemma_engine.scheduling.stage_timer import Laps
from dgemma_engine.syntax.error_check import SyntaxStore
from dgemma_engine.tokenization.tokenizer import Tokenizer
from dgemma_engine.tokenization.vocabulary_index import Spelling

# Candidates that are sent with an answer, the shown one first; more where the user chooses among them.
_SENT_CANDIDATES = 3
_SENT_ON_DEMAND = 5
# Text that seeds are looked for in. More is found in more, but the first look at a document takes that much longer.
_SEED_CHARACTERS = 600_000


def _ignore(_draft: Draft) -> None:
    pass


class Engine:
    """One model, ready to fill holes.

    Args:
        model: in inference mode.
        tokenizer: of the same checkpoint.
        infill_format: how the checkpoint wants holes.
        sampler: decisions of the denoising loop.
        calibration: what scores mean, and from which on a candidate is shown.
        name: shown to users.
        path: folder it came from, shown to users.
        clock: seconds that never go backwards.
        least_draft_score: score under which a draft that time left unranked is not worth showing, for a model without a
            calibration; 0 shows every draft, 1 none. A calibrated model shows none.
        decode: what proposes candidates, whatever a request's recipe says; None leaves that to the recipe.
    """

    def __init__(
        self,
        model: DiffusionModel,
        tokenizer: Tokenizer,
        infill_format: InfillFormat,
        sampler: Sampler,
        calibration: Calibration,
        *,
        name: str,
        path: str,
        clock: Callable[[], float] = time.monotonic,
        least_draft_score: float = 0.5,
        decode: Decode | None = None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._format = infill_format
        self._calibration = calibration
        self._prompts = PromptStore(model)
        self._suffixes = SuffixStore()
        self._seeds = SeedStore(max_characters=_SEED_CHARACTERS)
        self._syntax = SyntaxStore()
        self._spelling = Spelling(tokenizer)
        self._proposer = Proposer(model, tokenizer, self._spelling, sampler, calibration, executor_factory(model))
        self._pace = Pace()
        self._clock = clock
        self._least_draft_score = least_draft_score
        self._decode = decode
        self._steps = 0
        self.model_name, self.model_path = name, path
        self.device = str(model.device)
        self.compiled = model.is_compiled
        self.uncompiled_reason = model.uncompiled_reason

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        device: str,
        report: Callable[[int, str], None],
        ops: Ops | None = None,
        calibration: Calibration | None = None,
    ) -> Self:
        """Loads a checkpoint.

        Args:
            path: a folder or file of one of the families; beside it `infill.json` if it was trained to fill.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            report: called with percentage and a line for a person.
            ops: operations the model calls; by default kernels on CUDA and plain PyTorch elsewhere.
            calibration: to use in place of the folder's, which is then not read.

        Raises:
            CheckpointError: the folder cannot be used, or the model does not fit; the message has the remedy.
            FormatError: `infill.json` cannot be used.
        """
        target = pick_device(device)
        limit_threads(os.environ)
        report(1, f"reading {path.name}")
        facts = read_facts(path)
        family = family_of(facts)
        tokenizer, infill_format = family.read_tokenizer(facts), family.read_format(facts)

        def report_weights(percent: int) -> None:
            if percent % 5 == 0:
                report(1 + percent * 98 // 100, "loading weights")

        longest = infill_format.longest_prompt
        options = LoadOptions(device=target, ops=ops, prompt_tokens=longest, report=report_weights)
        model = family.load_model(facts, options)
        tokenizer.require_vocab(model.config.vocab_size)
        sampler = family.read_sampler(facts, model.config.vocab_size)
        calibration = family.read_calibration(facts) if calibration is None else calibration
        decode = None if family.has_canvas(facts) else Decode.LEFT_TO_RIGHT
        parts = (model, tokenizer, infill_format, sampler, calibration)
        engine = cls(*parts, name=path.name, path=str(path), decode=decode)
        engine.warm_up()
        report(100, "ready")
        return engine

    @property
    def denoising_steps(self) -> int:
        """Denoising steps made since the start, over all requests; readable from any thread."""
        return self._steps

    @property
    def device_memory_bytes(self) -> int:
        """Memory held on the accelerator; 0 on a CPU."""
        return torch.cuda.memory_reserved(self._model.device) if self._model.device.type == "cuda" else 0

    def warm_up(self) -> None:
        """Makes two denoising steps of no consequence: the first user does not pay for first-time allocations."""
        for context in first_questions(compiles=self._model.compiles_on_first_pass):
            asked = itertools.count()
            self.infill(context, Cancel(deadline_s=3, clock=lambda asked=asked: next(asked)))
        # How long first steps take says nothing of later ones.
        self._steps, self._pace = 0, Pace()

    def count_tokens(self, text: str) -> int:
        """Returns how many tokens a text has."""
        return len(self._tokenizer.encode(text))

    def infill(
        self,
        context: Context,
        cancel: Cancel,
        on_draft: OnDraft = _ignore,
        *,
        recipe: Recipe = DEFAULT,
        recorder: Observer | None = None,
    ) -> Infill:
        """Fills one hole.

        Args:
            context: the question.
            cancel: asked between forward passes; its deadline is the request's.
            on_draft: called with what the canvas says after each denoising step, if the question asks for drafts.
            recipe: parts to leave out, for measurements.
            recorder: told what every step did; the answer is the same without.

        Returns:
            The answer; its text is empty when there is nothing worth showing.

        Raises:
            EngineFault: the device's memory ran out; it is free again.
        """
        return finished(self.filling(context, cancel, on_draft, recipe=recipe, recorder=recorder))

    def filling(
        self,
        context: Context,
        cancel: Cancel,
        on_draft: OnDraft = _ignore,
        *,
        recipe: Recipe = DEFAULT,
        recorder: Observer | None = None,
    ) -> Pieces[Infill]:
        """Fills one hole as `infill` does, in pieces; two of one document share its prompt and may not take turns."""
        with self._prompts.using(context.document):
            work = self._filling(context, cancel, on_draft, recipe, recorder)
            return (yield from freeing_on_exhaustion(work, self._prompts.clear, self._model.device))

    def _filling(
        self, context: Context, cancel: Cancel, on_draft: OnDraft, recipe: Recipe, recorder: Observer | None
    ) -> Pieces[Infill]:
        lap = Laps(self._clock)
        search = yield from self._search(context, cancel, on_draft, recipe, lap, recorder)
        found, ranked = search.found, search.ranked
        if search.finish is not None:
            return search.answer([], lap.timings_ms())
        is_worth_it = bool(ranked) and search.is_worth_it(self._calibration, self._least_draft_score)
        is_silent = recipe.silence and not (context.on_demand or context.insistent)
        is_shown = bool(ranked) and (not is_silent or is_worth_it)
        if recorder is not None:
            proposals, added_errors = merged(found.proposals), self._syntax.check(context).added_errors
            recorder.weighed(
                proposals, ranked, is_shown=is_shown, added_errors=added_errors, calibration=self._calibration
            )
        shown = ranked[: _SENT_ON_DEMAND if context.on_demand else _SENT_CANDIDATES] if is_shown else []
        return search.answer(shown, lap.timings_ms(), unlikely=is_shown and not is_worth_it)

    def ranked(self, context: Context, cancel: Cancel, *, recipe: Recipe = DEFAULT) -> list[Ranked]:
        """Returns every candidate with its features, best first, whatever its score: what a calibration is fitted on.

        Args:
            context: the question.
            cancel: asked between forward passes.
            recipe: parts to leave out.
        """
        return finished(self._search(context, cancel, _ignore, recipe, Laps(self._clock), None)).ranked

    def length_confidences(
        self, context: Context, lengths: Sequence[int], cancel: Cancel
    ) -> dict[int, list[float]] | None:
        """Returns how sure the first step is at each length, as the search without a fill token sees it.

        Args:
            context: the question.
            lengths: in tokens, those the middle may have.
            cancel: asked before the pass.

        Returns:
            Mean negative entropies in nats, one per noise draw; None if `cancel` said stop.
        """
        form = self._format.without_fill()
        hole = dig(context, self._tokenizer, form, self._model.config)
        cache = finished(self._prompts.encoded(context.document, hole.prompt_ids, cancel))
        return None if cache is None else self._proposer.length_confidences(context, hole, form, cache, lengths)

    def _search(
        self, context: Context, cancel: Cancel, on_draft: OnDraft, recipe: Recipe, lap: Laps, recorder: Observer | None
    ) -> Pieces[Search]:
        search = Search(found=Proposed())
        if search.is_over(cancel):
            return search
        recipe = recipe if self._decode is None else replace(recipe, decode=self._decode)
        form = self._format if recipe.fill else self._format.without_fill()
        hole = dig(
            context,
            self._tokenizer,
            form,
            self._model.config,
            settled=lambda suffix_ids, num_clamped: self._suffixes.settled(context.document, suffix_ids, num_clamped),
        )
        if recorder is not None:
            recorder.dug(hole, text_of=self._spelling.text_of, name_of=self._tokenizer.name_of)
        lap("tokenize")
        most_left = 0 if recipe.decode is Decode.LEFT_TO_RIGHT else JOINED_TOKENS[self._model.device.type]
        cache = yield from self._prompts.encoded(context.document, hole.prompt_ids, cancel, most_left=most_left)
        lap("encode")
        if search.is_over(cancel) or cache is None:
            return search
        seeds = self._seeds.propose(context) if recipe.seeds else []
        lap("propose")
        # What ranking takes is kept back from the canvases.
        reserved = cancel.sooner(self._pace.expected_s("rank"))
        search.found = found = yield from self._propose(
            context, hole, form, cache, reserved, recipe, seeds, on_draft, recorder
        )
        denoise_s = lap("denoise")
        # Others were served between the steps of what is asked for on demand.
        if found.steps and not context.on_demand:
            self._pace.learn("step", denoise_s / found.steps)
        if cancel.cancelled and search.is_over(cancel):
            return search
        if not found.steps:
            # No step was made that could have added the end of the prompt.
            cache = yield from self._prompts.encoded(context.document, hole.prompt_ids, cancel)
        search.judged = cache is not None and not cancel.expired
        if cache is not None and search.judged:
            search.ranked = yield from self._rank(context, hole, form, cache, found, cancel)
        else:
            search.ranked = unjudged(self._passing(context, found.proposals))
        rank_s = lap("rank")
        if search.judged:
            self._pace.learn("rank", rank_s)
        if cancel.cancelled:
            search.is_over(cancel)
        return search

    def _propose(
        self,
        context: Context,
        hole: Hole,
        form: InfillFormat,
        cache: PromptCache,
        cancel: Cancel,
        recipe: Recipe,
        seeds: Sequence[Seed],
        on_draft: OnDraft,
        recorder: Observer | None,
    ) -> Pieces[Proposed]:
        found, num_steps = Proposed(), self._affordable_steps(context, cancel)

        def on_step(before: int, step: int, readings: Callable[[], list[Reading]]) -> None:
            self._steps += 1
            if context.drafts:
                begun, limit, text_of = hole.boundary.begun, before + num_steps, self._spelling.text_of
                on_draft(draft(context.drafts, before + step, readings(), begun, text_of, steps_limit=limit))

        if recipe.decode is not Decode.LEFT_TO_RIGHT:
            found = yield from self._proposer.on_canvas(
                context,
                hole,
                form,
                cache,
                cancel,
                recipe=recipe,
                seeds=seeds,
                num_steps=num_steps,
                on_step=on_step,
                recorder=recorder,
            )
        if recipe.decode is not Decode.DIFFUSION and not (cancel.cancelled or cancel.expired):
            drafts = unjudged(found.proposals)
            written = yield from self._proposer.from_left_to_right(
                context,
                hole,
                form,
                cache,
                cancel,
                draft=drafts[0].proposal.text if drafts else "",
                recipe=recipe,
                recorder=recorder,
            )
            found.proposals += written.proposals
            found.passes += written.passes
            if recipe.decode is Decode.LEFT_TO_RIGHT:
                found.finish = written.finish
        found.proposals += [Proposal(text=seed.text, source=CandidateSource.SEED, seed=seed) for seed in seeds]
        return found

    def _passing(self, context: Context, proposals: Sequence[Proposal]) -> list[Proposal]:
        """Returns what may be sent without being ranked: what is asked for on demand is parsed even late."""
        if not context.on_demand:
            return list(proposals)
        syntax = self._syntax.check(context)
        return [proposal for proposal in proposals if syntax.added_errors(proposal.text) <= 0]

    def _affordable_steps(self, context: Context, cancel: Cancel) -> int:
        """Returns over how many steps the schedule is spread: those that fit before the deadline, at most the usual."""
        usual, step_s = self._proposer.num_steps(context.extent), self._pace.expected_s("step")
        return max(1, int(min(usual, cancel.left_s / step_s))) if step_s else usual

    def _rank(
        self, context: Context, hole: Hole, form: InfillFormat, cache: PromptCache, found: Proposed, cancel: Cancel
    ) -> Pieces[list[Ranked]]:
        ranked = yield from rank(
            found.proposals,
            hole,
            model=self._model,
            cache=cache,
            encode=self._tokenizer.encode,
            banned_ids=self._proposer.banned_ids(hole, form),
            syntax=self._syntax.check(context),
            calibration=self._calibration,
            cancel=cancel,
        )
        found.passes += bool(ranked)
        return ranked
