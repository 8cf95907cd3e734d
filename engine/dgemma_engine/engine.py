"""A loaded model that fills holes: `Context` in, `Infill` out.

Wires tokenizer, prompt, canvas and denoising for one request at a time; it is called on one thread only. Knows nothing
of sockets, queues or editors.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from dgemma_engine import canvas as canvases
from dgemma_engine.cache import PromptCache
from dgemma_engine.cancel import Cancel
from dgemma_engine.canvas import Middle
from dgemma_engine.denoise import Denoised, denoise
from dgemma_engine.devices import limit_threads, pick_device, weight_dtype
from dgemma_engine.infill_format import InfillFormat
from dgemma_engine.messages import Context, Extent, Finish, Infill
from dgemma_engine.middle import cut_to_line, drop_suffix_copy
from dgemma_engine.model import DiffusionGemma
from dgemma_engine.ops import Ops
from dgemma_engine.policies import Sampler
from dgemma_engine.prompts import PromptStore
from dgemma_engine.sampler_config import load_sampler
from dgemma_engine.tokenizer import Tokenizer
from dgemma_engine.weights import load_model

# Text handed to the tokenizer per token of budget. Generous: the embedded model's corpus has 3.1 bytes a token.
_CHARACTERS_PER_TOKEN = 8
# Slots to begin with, chosen without a measurement; a middle that does not fit is tried again in the next size.
_LINE_TOKENS = 16
_BLOCK_TOKENS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hole:
    """Token ids of one request."""

    prompt_ids: list[int]
    head_ids: list[int]
    end_ids: frozenset[int]


class Engine:
    """One model, ready to fill holes.

    Args:
        model: in inference mode.
        tokenizer: of the same checkpoint.
        infill_format: how the checkpoint wants holes.
        sampler: decisions of the denoising loop.
        name: shown to users.
        path: folder it came from, shown to users.
        clock: seconds that never go backwards.
        least_draft_score: score under which an unfinished draft is not worth showing at the deadline; 0 shows every
            draft, 1 none.
    """

    def __init__(
        self,
        model: DiffusionGemma,
        tokenizer: Tokenizer,
        infill_format: InfillFormat,
        sampler: Sampler,
        *,
        name: str,
        path: str,
        clock: Callable[[], float] = time.monotonic,
        least_draft_score: float = 0.5,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._format = infill_format
        self._sampler = sampler
        self._prompts = PromptStore(model)
        self._clock = clock
        self._least_draft_score = least_draft_score
        self._steps = 0
        self.model_name = name
        self.model_path = path
        self.device = str(model.device)

    @classmethod
    def load(cls, path: Path, *, device: str, report: Callable[[int, str], None], ops: Ops | None = None) -> Self:
        """Loads a model folder.

        Args:
            path: a Hugging Face DiffusionGemma folder with `tokenizer.json`; `infill.json` if it was trained to fill.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            report: called with percentage and a line for a person.
            ops: operations the model calls; plain PyTorch by default.

        Raises:
            CheckpointError: the folder cannot be used; the message names the file or key and the remedy.
            FormatError: `infill.json` cannot be used.
        """
        target = pick_device(device)
        limit_threads(os.environ)
        report(1, f"reading {path.name}")
        tokenizer = Tokenizer.load(path)
        infill_format = InfillFormat.load(path)

        def report_weights(percent: int) -> None:
            if percent % 5 == 0:
                report(1 + percent * 98 // 100, "loading weights")

        chosen_ops = Ops.reference() if ops is None else ops
        model = load_model(path, chosen_ops, device=target, dtype=weight_dtype(target), report=report_weights)
        tokenizer.require_vocab(model.config.vocab_size)
        sampler = load_sampler(path, model.config.vocab_size)
        engine = cls(model, tokenizer, infill_format, sampler, name=path.name, path=str(path))
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
        asked = itertools.count()
        context = Context(document="", prefix="def f(x):\n    return ", suffix="\n")
        self.infill(context, Cancel(deadline_s=3, clock=lambda: next(asked)))
        self._steps = 0

    def infill(self, context: Context, cancel: Cancel) -> Infill:
        """Fills one hole.

        Args:
            context: the question.
            cancel: asked between denoising steps; its deadline is the request's.

        Returns:
            The answer; its text is empty when there is nothing worth showing.
        """
        started = self._clock()
        hole = self._tokenize(context)
        tokenized = self._clock()
        if cancel.cancelled or cancel.expired:
            return Infill(text="", finish=Finish.CANCELLED if cancel.cancelled else Finish.DEADLINE)
        cache = self._prompts.encoded(context.document, hole.prompt_ids)
        encoded = self._clock()
        denoised, middle, confidence = self._fill(context, hole, cache, cancel)
        finished = self._clock()
        text = self._text(context, middle)
        score = confidence if text else 0.0
        finish = denoised.finish
        if finish is Finish.CANCELLED or (finish is Finish.DEADLINE and score < self._least_draft_score):
            text, score = "", 0.0
        elif not text and finish is not Finish.DEADLINE:
            finish = Finish.EMPTY
        return Infill(
            text=text,
            finish=finish,
            score=score,
            steps=denoised.steps,
            timings_ms={
                "tokenize": (tokenized - started) * 1e3,
                "encode": (encoded - tokenized) * 1e3,
                "denoise": (finished - encoded) * 1e3,
                "total": (self._clock() - started) * 1e3,
            },
        )

    def _tokenize(self, context: Context) -> _Hole:
        config, form = self._model.config, self._format
        blank_rest = not context.suffix.strip()
        prefix = _tail(context.prefix, form.prefix_tokens * _CHARACTERS_PER_TOKEN)
        suffix_budget = max(form.suffix_tokens, form.suffix_head_tokens) * _CHARACTERS_PER_TOKEN
        suffix_ids = [] if blank_rest else self._tokenizer.encode(context.suffix[:suffix_budget])
        end_ids: set[int] = set() if form.fill_token_id is None else {form.fill_token_id}
        if blank_rest:
            end_ids.update(config.eos_token_ids)
        return _Hole(
            prompt_ids=form.prompt_ids(
                prefix_ids=self._tokenizer.encode(prefix), suffix_ids=suffix_ids, bos_token_id=config.bos_token_id
            ),
            # Half the canvas stays free, whatever the format asks for.
            head_ids=form.suffix_head_ids(suffix_ids)[: config.canvas_length // 2],
            end_ids=frozenset(end_ids),
        )

    def _fill(
        self, context: Context, hole: _Hole, cache: PromptCache, cancel: Cancel
    ) -> tuple[Denoised, Middle, float]:
        """Denoises slots of growing size until the middle fits or time is up."""
        generator = torch.Generator(self._model.device).manual_seed(context.seed)
        banned_ids = self._banned_ids(hole)
        steps_before = 0
        wanted = min(context.max_middle_tokens, _LINE_TOKENS if context.extent is Extent.LINE else _BLOCK_TOKENS)
        slot_size = self._slot_size(wanted, len(hole.head_ids))
        while True:
            canvas = canvases.build(slot_size, hole.head_ids, self._sampler.noise, generator)
            denoised = denoise(
                self._model,
                cache,
                canvas,
                self._sampler,
                banned_ids=banned_ids,
                generator=generator,
                cancel=cancel,
                on_step=self._count_step,
            )
            middle, confidence = self._read(denoised, hole, slot_size)
            denoised = Denoised(
                finish=denoised.finish,
                best_BL=denoised.best_BL,
                confidence_BL=denoised.confidence_BL,
                steps=steps_before + denoised.steps,
            )
            larger = self._slot_size(slot_size + 1, len(hole.head_ids))
            if middle.ended or larger <= slot_size or slot_size >= context.max_middle_tokens or cancel.expired:
                return denoised, middle, confidence
            steps_before, slot_size = denoised.steps, larger

    def _slot_size(self, wanted: int, head_tokens: int) -> int:
        """Returns a trained slot size for `wanted` tokens that fits on the canvas beside the suffix head."""
        return min(self._format.slot_size(wanted), self._model.config.canvas_length - head_tokens)

    def _read(self, denoised: Denoised, hole: _Hole, slot_size: int) -> tuple[Middle, float]:
        """Returns the middle and the geometric mean probability of its tokens and of the token that ended it."""
        if denoised.best_BL is None or denoised.confidence_BL is None:
            return Middle(ids=[], ended=True), 0.0
        slot_ids: list[int] = denoised.best_BL[0, :slot_size].tolist()
        middle = canvases.read(slot_ids, hole.end_ids, self._format.more_token_id)
        judged = denoised.confidence_BL[0, : min(len(middle.ids) + 1, slot_size)]
        return middle, judged.clamp(min=1e-9).log().mean().exp().item()

    def _text(self, context: Context, middle: Middle) -> str:
        text = self._tokenizer.decode(middle.ids)
        if self._format.fill_token_id is None:
            text = drop_suffix_copy(text, context.suffix)
        if context.extent is Extent.LINE:
            text = cut_to_line(text)
        return "" if not text.strip() or "\ufffd" in text else text

    def _banned_ids(self, hole: _Hole) -> Tensor:
        """Special tokens that may not stand in a hole: all but the ones that end it."""
        allowed = hole.end_ids | {self._format.more_token_id}
        banned = [token_id for token_id in self._tokenizer.special_ids if token_id not in allowed]
        return torch.tensor(banned, dtype=torch.int64, device=self._model.device)

    def _count_step(self) -> None:
        self._steps += 1


def _tail(text: str, budget: int) -> str:
    """Returns at most `budget` characters off the end of `text`, cut at a point that most keystrokes leave alone.

    The point moves in jumps of a quarter of the budget, so that the prompt of the next keystroke begins alike.
    """
    jump = max(1, budget // 4)
    start = max(0, -(-(len(text) - budget) // jump) * jump)
    return text[start:]
