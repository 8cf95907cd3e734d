"""A loaded model that fills holes: `Context` in, `Infill` out.

Loads the parts and runs the pipeline of each request. Called on one thread only. Knows nothing of sockets, queues or
editors.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self

import torch

from dgemma_engine.checkpoint.builtin import model_name
from dgemma_engine.checkpoint.calibration import Calibration, fingerprint
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.diffusion.sampler import Sampler
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.family import LoadOptions
from dgemma_engine.families.loaded_adapters import AdapterChoice, LoadedAdapters
from dgemma_engine.families.registry import family_of
from dgemma_engine.infill.candidate import Ranked
from dgemma_engine.infill.length_search import LengthReading
from dgemma_engine.infill.observer import Observer
from dgemma_engine.infill.oom import MEMORY_ERRORS, free_memory, is_exhaustion, slow_step_message
from dgemma_engine.infill.options import DEFAULT, Decode, InfillOptions
from dgemma_engine.infill.pipeline import Pipeline
from dgemma_engine.infill.store_limits import StoreLimits
from dgemma_engine.infill.warmup import warmup_requests
from dgemma_engine.model.devices import limit_threads, pick_device, use_device
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.ops import Ops
from dgemma_engine.prompting.prefix_cache import PromptStore
from dgemma_engine.protocol.messages import AdapterUse, Context, Infill, OnDraft
from dgemma_engine.repository_adapters.store import AdapterStore
from dgemma_engine.scheduling.cooperative import Pieces, finished
from dgemma_engine.scheduling.timing import Cancel, DurationEstimator, StageTimer
from dgemma_engine.tokenization.tokenizer import Tokenizer


class Engine:
    """One model, ready to fill holes.

    Args:
        model: in inference mode.
        tokenizer: of the same checkpoint.
        infill_format: how the checkpoint wants holes.
        sampler: decisions of the denoising loop.
        calibration: maps features to scores, and has the score from which a candidate is shown.
        adapters: beside the model, each with a calibration in place of the model's; None for none.
        name: shown to users.
        path: folder it came from, shown to users.
        clock: seconds that never go backwards.
        least_draft_score: least score of a candidate that is shown although there was no time to judge it, for a model
            without a calibration; 0 shows every one, 1 none. A calibrated model shows none.
        prompts: prompts kept warm; None begins with none.
        limits: of what is kept of documents; None takes those of one user.
        durations: expected durations of a step and of the ranking; None begins with none.
        decode: what proposes candidates, whatever a request's options say; None leaves that to the options.
    """

    def __init__(
        self,
        model: DiffusionModel,
        tokenizer: Tokenizer,
        infill_format: InfillFormat,
        sampler: Sampler,
        calibration: Calibration,
        *,
        adapters: LoadedAdapters | None = None,
        name: str,
        path: str,
        clock: Callable[[], float] = time.monotonic,
        least_draft_score: float = 0.5,
        prompts: PromptStore | None = None,
        limits: StoreLimits | None = None,
        durations: DurationEstimator | None = None,
        decode: Decode | None = None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._adapters = adapters
        self._without_adapter = AdapterChoice(model_adapter=None, calibration=calibration, use=AdapterUse())
        limits = limits or StoreLimits.of_one_user(model.device)
        parallel_tokens = infill_format.parallel_suffix_tokens
        self._pipeline = Pipeline(
            model,
            tokenizer,
            infill_format,
            sampler,
            prompts=prompts or PromptStore(model, max_bytes=limits.prompt_bytes, parallel_tokens=parallel_tokens),
            limits=limits,
            durations=durations or DurationEstimator(),
            decode=decode,
            least_draft_score=least_draft_score,
        )
        self._clock = clock
        self.model_name, self.model_path = name, path
        self.device = str(model.device)
        self.number_format = model.number_format
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
        adapters: AdapterStore | None = None,
        limits: Callable[[torch.device], StoreLimits] = StoreLimits.of_one_user,
    ) -> Self:
        """Loads a checkpoint.

        Args:
            path: a folder or file of one of the families; beside it `infill.json` if it was trained to fill.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            report: called with percentage and a line for a person.
            ops: operations the model calls; by default kernels on CUDA and plain PyTorch elsewhere.
            calibration: to use in place of the model's own, which is then not read.
            adapters: of repositories; None uses none.
            limits: returns those of what is kept of documents; called with the device once the model is loaded.

        Raises:
            CheckpointError: the folder cannot be used, or the model does not fit; the message has the remedy.
            FormatError: `infill.json` cannot be used.
        """
        target = pick_device(device)
        use_device(target)
        limit_threads(os.environ)
        report(1, f"reading {model_name(path)}")
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
        infill_format.require_vocabulary(model.config.vocab_size)
        sampler = family.read_sampler(facts, model.config.vocab_size)
        name = fingerprint(path)
        calibration = Calibration.load(path, name) if calibration is None else calibration
        beside = None
        if adapters is not None:
            load = partial(family.load_adapter, facts, model)
            beside = LoadedAdapters(adapters, load, calibration=calibration, fingerprint=name)
        only = None if model.has_causal_mode else Decode.DIFFUSION
        decode = only if family.has_canvas(facts) else Decode.LEFT_TO_RIGHT
        parts, kept = (model, tokenizer, infill_format, sampler, calibration), limits(target)
        engine = cls(*parts, adapters=beside, name=model_name(path), path=str(path), decode=decode, limits=kept)
        engine.warm_up()
        report(100, "ready")
        return engine

    @property
    def adapters(self) -> dict[str, str]:
        """See `Status.adapters`; readable from any thread."""
        return {} if self._adapters is None else self._adapters.uses()

    @property
    def denoising_steps(self) -> int:
        """Denoising steps made since the start, over all requests; readable from any thread."""
        return self._pipeline.canvases.num_steps_made

    @property
    def device_memory_bytes(self) -> int:
        """Memory held on the accelerator; 0 on a CPU."""
        return torch.cuda.memory_reserved(self._model.device) if self._model.device.type == "cuda" else 0

    @property
    def notice(self) -> str:
        """What keeps the engine from its usual speed, one line for a person; empty if nothing does."""
        return slow_step_message(self._model.device) if self._pipeline.durations.is_slow("step") else ""

    def warm_up(self) -> None:
        """Makes two denoising steps for a warm-up request: first-time allocations are paid for at startup."""
        for context in warmup_requests(compiles=self._model.compiles_on_first_pass):
            asked = itertools.count()
            self.infill(context, Cancel(deadline_s=3, clock=lambda asked=asked: next(asked)))
        # First steps take longer than later ones.
        self._pipeline.canvases.num_steps_made, self._pipeline.durations = 0, DurationEstimator()

    def count_tokens(self, text: str) -> int:
        """Returns how many tokens a text has."""
        return self._tokenizer.count(text)

    def infill(
        self,
        context: Context,
        cancel: Cancel,
        on_draft: OnDraft | None = None,
        *,
        options: InfillOptions = DEFAULT,
        recorder: Observer | None = None,
    ) -> Infill:
        """Fills one hole.

        Args:
            context: the request.
            cancel: asked between forward passes; its deadline is the request's.
            on_draft: receives the text of the canvas after each denoising step, if the request asks for drafts.
            options: parts to leave out, for measurements.
            recorder: receives what every step did; the answer is the same without.

        Returns:
            The answer; its text is empty when there is nothing worth showing.

        Raises:
            EngineFault: the device's memory ran out; it is free again.
        """
        return finished(self.filling(context, cancel, on_draft, options=options, recorder=recorder))

    def filling(
        self,
        context: Context,
        cancel: Cancel,
        on_draft: OnDraft | None = None,
        *,
        options: InfillOptions = DEFAULT,
        recorder: Observer | None = None,
    ) -> Pieces[Infill]:
        """Fills one hole as `infill` does, step by step; two of one document share its prompt and may not alternate."""
        timer, prompts = StageTimer(self._clock), self._pipeline.prompts
        prompts.in_use.add(context.document)
        try:
            choice = self._choice(context.folder)
            search = yield from self._pipeline.search(context, choice, cancel, on_draft, options, timer, recorder)
        except MEMORY_ERRORS as error:
            if not is_exhaustion(error):
                raise
        else:
            return self._pipeline.answer(context, choice, search, options, timer, recorder)
        finally:
            prompts.in_use.discard(context.document)
        raise free_memory(prompts.clear, self._model.device)

    def ranked(self, context: Context, cancel: Cancel, *, options: InfillOptions = DEFAULT) -> list[Ranked]:
        """Returns every candidate with its features, best first, whatever its score: what a calibration is fitted on.

        Args:
            context: the request.
            cancel: asked between forward passes.
            options: parts to leave out.
        """
        choice, timer = self._choice(context.folder), StageTimer(self._clock)
        return finished(self._pipeline.search(context, choice, cancel, None, options, timer, None)).ranked

    def length_reading(self, context: Context, middle: str, cancel: Cancel) -> LengthReading | None:
        """Returns what the search for a length reads in a hole; see `Pipeline.length_reading`."""
        return self._pipeline.length_reading(context, self._choice(context.folder), middle, cancel)

    def _choice(self, folder: str) -> AdapterChoice:
        return self._adapters.choose(folder) if self._adapters is not None and folder else self._without_adapter
