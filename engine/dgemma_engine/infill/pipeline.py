"""One request from prompt to answer: encodes the prompt, proposes, ranks, and measures how long that takes.

Turns `Context` into a `Search`, and that into an `Infill`: whether the best candidate is shown is decided here. Owns
what is stored per document: prompts, suffixes, seeds, syntax trees. Called on the device thread.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from dgemma_engine.backends.select import executor_factory
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.diffusion.sampler import Sampler
from dgemma_engine.families.loaded_adapters import AdapterChoice
from dgemma_engine.infill.candidate import Proposal, Search
from dgemma_engine.infill.canvas_candidates import CanvasCandidates
from dgemma_engine.infill.left_to_right import propose as propose_left_to_right
from dgemma_engine.infill.length_search import LengthReading
from dgemma_engine.infill.observer import Observer
from dgemma_engine.infill.options import Decode, InfillOptions
from dgemma_engine.infill.ranker import merged, rank, rank_unjudged
from dgemma_engine.infill.store_limits import StoreLimits
from dgemma_engine.infill.task import InfillTask, build_prompt
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.postprocess.clean_candidate import clean_candidate
from dgemma_engine.prompt_lookup.candidates import SeedStore
from dgemma_engine.prompting.prefix_cache import JOINED_TOKENS, PromptStore, SuffixStore
from dgemma_engine.protocol.messages import Candidate, CandidateSource, Context, Finish, Infill, OnDraft
from dgemma_engine.scheduling.cooperative import Pieces, finished
from dgemma_engine.scheduling.timing import Cancel, DurationEstimator, StageTimer
from dgemma_engine.syntax.error_check import SyntaxStore
from dgemma_engine.tokenization.tokenizer import Spelling, Tokenizer

# Candidates that are sent with an answer, the shown one first; more where the user chooses among them.
_SENT_CANDIDATES = 3
_SENT_ON_DEMAND = 5


class Pipeline:
    """Candidates of one model, ranked.

    Args:
        model: in inference mode.
        tokenizer: of the same checkpoint.
        infill_format: how the checkpoint wants holes.
        sampler: decisions of the denoising loop.
        prompts: prompts kept warm.
        limits: of what is kept of documents.
        durations: expected durations of a step and of the ranking.
        decode: what proposes candidates, whatever a request's options say; None leaves that to the options.
        least_draft_score: see `Engine`.

    Attributes:
        prompts: see above.
        syntax: syntax trees of documents.
        canvases: makes the denoising steps, and counts them.
        durations: see above.
    """

    def __init__(
        self,
        model: DiffusionModel,
        tokenizer: Tokenizer,
        infill_format: InfillFormat,
        sampler: Sampler,
        *,
        prompts: PromptStore,
        limits: StoreLimits,
        durations: DurationEstimator,
        decode: Decode | None = None,
        least_draft_score: float,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._format = infill_format
        self._decode, self._least_draft_score = decode, least_draft_score
        self._noise = sampler.noise
        self._suffixes = SuffixStore()
        self._seeds = SeedStore(max_characters=limits.indexed_characters)
        self._spelling = Spelling(tokenizer)
        self.prompts = prompts
        self.syntax = SyntaxStore(max_bytes=limits.parsed_bytes)
        self.canvases = CanvasCandidates(model, sampler, executor_factory(model))
        self.durations = durations

    def search(
        self,
        context: Context,
        choice: AdapterChoice,
        cancel: Cancel,
        on_draft: OnDraft | None,
        options: InfillOptions,
        timer: StageTimer,
        observer: Observer | None,
    ) -> Pieces[Search]:
        """Makes candidates and ranks them: prompt, canvases, causal mode, ranking."""
        search = Search(stop=cancel.finish)
        if search.stop is not None:
            return search
        task = self._task(context, choice, on_draft, options, observer)
        timer.end("tokenize")
        prompt_ids, device, decode = task.hole.prompt_ids, self._model.device, self._decode or options.decode
        # The first denoising step adds the end of the prompt, where there is one.
        most_left = 0 if decode is Decode.LEFT_TO_RIGHT else JOINED_TOKENS[device.type]
        encoded = partial(
            self.prompts.encoded,
            context.document,
            prompt_ids,
            cancel,
            parallel_ids=task.hole.parallel_ids,
            adapter=choice.model_adapter,
        )
        cache = yield from encoded(most_left=most_left)
        timer.end("encode")
        search.prompt_tokens = len(prompt_ids) + len(task.hole.parallel_ids)
        search.encoded_tokens = self.prompts.num_encoded(context.document)
        search.stop = cancel.finish
        if search.stop is not None or cache is None:
            return search
        seeds = self._seeds.propose(context) if options.seeds else []
        timer.end("propose")

        # The time that ranking takes is kept back from the canvases.
        expected_s = self.durations.mean_s
        reserved = replace(cancel, deadline_s=cancel.deadline_s - expected_s.get("rank", 0.0))
        # The schedule is spread over the steps that fit before the deadline, at most the usual.
        num_steps, step_s = self.canvases.num_steps[context.extent], expected_s.get("step", 0.0)
        num_steps = max(1, int(min(num_steps, reserved.left_s / step_s))) if step_s else num_steps
        if decode is not Decode.LEFT_TO_RIGHT:
            search.proposals = yield from self.canvases.propose(task, cache, reserved, seeds=seeds, num_steps=num_steps)
        proposals = search.proposals
        if decode is not Decode.DIFFUSION and reserved.finish is None:
            best = rank_unjudged(proposals.found)[:1]
            written = yield from propose_left_to_right(
                self._model, task, cache, reserved, draft=best[0].proposal.text if best else ""
            )
            proposals.found += written.found
            proposals.passes += written.passes
            if decode is Decode.LEFT_TO_RIGHT:
                proposals.finish = written.finish
        proposals.found += [
            Proposal(text=text, source=CandidateSource.SEED, seed=seed)
            for seed in seeds
            if (text := clean_candidate(seed.text, context))
        ]
        proposals.found = task.shaped(proposals.found)
        denoise_s = timer.end("denoise")
        # Other requests were served between the steps of one on demand.
        if proposals.steps and not context.on_demand:
            self.durations.add("step", denoise_s / proposals.steps)
        if cancel.cancelled:
            search.stop = Finish.CANCELLED
            return search

        if not proposals.steps:
            # No step was made that could have added the end of the prompt.
            cache = yield from encoded()
        search.is_judged = cache is not None and cancel.finish is None
        if cache is not None and search.is_judged:
            search.ranked = yield from rank(
                task,
                proposals.found,
                model=self._model,
                cache=cache,
                noise=self._noise,
                syntax=self.syntax.check(context),
                cancel=cancel,
            )
            proposals.passes += bool(search.ranked)
        else:
            # A request on demand is checked even when it is late.
            syntax = self.syntax.check(context) if context.on_demand else None
            search.ranked = rank_unjudged(proposals.found, syntax)
        rank_s = timer.end("rank")
        if search.is_judged:
            self.durations.add("rank", rank_s)
        if cancel.cancelled:
            search.stop = Finish.CANCELLED
        return search

    def answer(
        self,
        context: Context,
        choice: AdapterChoice,
        search: Search,
        options: InfillOptions,
        timer: StageTimer,
        observer: Observer | None,
    ) -> Infill:
        """Returns the answer, with the best candidate if that is likely enough or wanted however unlikely it is."""
        proposals, calibration, ranked = search.proposals, choice.calibration, search.ranked
        is_likely = is_shown = False
        if search.stop is None:
            if ranked and search.is_judged:
                is_likely = ranked[0].score >= calibration.threshold
            elif ranked:
                # The score of an unjudged candidate is none of a calibrated model's scores.
                is_likely = calibration.weights is None and ranked[0].score >= self._least_draft_score
            is_silent = options.silence and not (context.on_demand or context.insistent)
            is_shown = bool(ranked) and (not is_silent or is_likely)
            if observer is not None:
                added_errors, distinct = self.syntax.check(context).added_errors, merged(proposals.found)
                observer.weighed(
                    distinct, ranked, is_shown=is_shown, added_errors=added_errors, calibration=calibration
                )
        num_sent = _SENT_ON_DEMAND if context.on_demand else _SENT_CANDIDATES
        candidates = tuple(
            Candidate(
                text=made.text,
                score=one.score,
                source=made.source,
                covered=made.covered,
                num_tokens=made.num_tokens,
                is_cut=made.is_cut,
            )
            for one in ranked[: num_sent if is_shown else 0]
            for made in (one.proposal,)
        )
        text = candidates[0].text if candidates else ""
        silent = proposals.finish if proposals.finish is Finish.DEADLINE else Finish.EMPTY
        return Infill(
            text=text,
            covered=candidates[0].covered if candidates else 0,
            finish=search.stop or (proposals.finish if candidates else silent),
            score=candidates[0].score if candidates else 0.0,
            steps=proposals.steps,
            forwards=proposals.steps + proposals.passes,
            candidates=candidates,
            timings_ms=timer.timings_ms(),
            unlikely=bool(text) and not is_likely,
            prompt_tokens=search.prompt_tokens,
            encoded_tokens=search.encoded_tokens,
            adapter=choice.use,
        )

    def length_reading(
        self, context: Context, choice: AdapterChoice, middle: str, cancel: Cancel
    ) -> LengthReading | None:
        """Returns what the search for a length reads in a hole whose middle is known.

        Args:
            context: the request.
            choice: the adapter that takes part.
            middle: what stands in the hole.
            cancel: asked before the pass.

        Returns:
            None if the request was cancelled or is out of time.
        """
        task = self._task(context, choice, None, InfillOptions(fill=False), None, is_stored=False)
        hole = task.hole
        cache = finished(
            self.prompts.encoded(
                context.document,
                hole.prompt_ids,
                cancel,
                parallel_ids=hole.parallel_ids,
                adapter=choice.model_adapter,
            )
        )
        return None if cache is None else self.canvases.length_reading(task, cache, middle)

    def _task(
        self,
        context: Context,
        choice: AdapterChoice,
        on_draft: OnDraft | None,
        options: InfillOptions,
        observer: Observer | None,
        *,
        is_stored: bool = True,
    ) -> InfillTask:
        """Returns a request in token ids; with `is_stored` its prompt takes the document's stored suffix over."""
        form = self._format if options.fill else self._format.without_fill()
        settled = partial(self._suffixes.settled, context.document) if is_stored else None
        hole = build_prompt(context, self._tokenizer, form, self._model.config, settled=settled)
        if observer is not None:
            observer.prompt_built(hole, text_of=self._spelling.text_of, name_of=self._tokenizer.name_of)
        return InfillTask(
            context=context,
            hole=hole,
            form=form,
            options=options,
            tokenizer=self._tokenizer,
            spelling=self._spelling,
            calibration=choice.calibration,
            on_draft=on_draft,
            observer=observer,
        )
