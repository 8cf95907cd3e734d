"""What is measured of one model on a GPU: each case makes requests as the engine does and returns rows of a result.

A case has a model, sizes and a clock; `gpu_parts.py` decides which cases run, and what happens to one that fails.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from dgemma_engine.backends.cuda.graph_executor import GraphExecutor
from dgemma_engine.backends.cuda.graph_model import GraphModel
from dgemma_engine.backends.cuda.graphs import Graphs, capture_on
from dgemma_engine.backends.cuda.model import FusedModel
from dgemma_engine.diffusion import canvas as canvases
from dgemma_engine.diffusion.canvas import Row
from dgemma_engine.diffusion.denoiser import Denoiser
from dgemma_engine.diffusion.eager_executor import EagerExecutor
from dgemma_engine.diffusion.pass_queue import PassQueue
from dgemma_engine.diffusion.sampler import (
    EntropyBound,
    Sampler,
    StableAndConfident,
    StopRule,
    TemperatureSchedule,
    UniformNoise,
)
from dgemma_engine.diffusion.step_executor import StepExecutor
from dgemma_engine.infill.likelihood import Branch, likelihoods
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.prompting.prefix_cache import PromptStore
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel

# As in the released checkpoint's generation_config.json.
SAMPLER = Sampler(
    num_steps=48,
    schedule=TemperatureSchedule(t_min=0.4, t_max=0.8),
    acceptance=EntropyBound(bound=0.1),
    noise=UniformNoise(vocab_size=1),
    stop=StableAndConfident(num_earlier=1, confidence=0.005),
)
NEVER = StableAndConfident(num_earlier=10_000, confidence=0.1)
# Passes of an inline completion: denoising steps, and the ranking.
INLINE_PASSES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large requests are; the defaults are those of the targets."""

    canvas: int = 256
    prompt: int = 1_024
    fixed_steps: int = 16
    prefill: int = 2_048
    inline_prompt: int = 2_048
    inline_tokens: int = 64
    long_prompts: tuple[int, ...] = (8_192, 32_768)
    users: tuple[int, ...] = (1, 2, 4, 8)
    users_canvas: int = 100
    rounds: int = 5
    inline_rounds: int = 30
    # Completions before the first that counts: passes of each length are compiled once and captured once.
    uncounted: int = 9


def row(case: str, form: str, sizes: Sizes, **values: Any) -> dict[str, Any]:
    """Returns one entry of `results`; values that a case does not measure are None."""
    entry: dict[str, Any] = {
        "case": case, "format": form, "ms_per_step": None, "tokens_per_s": None, "steps": None,
        "canvas": sizes.canvas, "prompt_tokens": None, "peak_bytes": None, "ratio_to_transformers": None,
    }  # fmt: skip
    unknown = values.keys() - entry.keys()
    assert not unknown, unknown
    return entry | values


class Bench:
    """One model under measurement.

    Args:
        model: with random weights.
        form: its format's name.
        sizes: of requests.
    """

    def __init__(self, model: FusedModel, form: str, sizes: Sizes) -> None:
        graphs = Graphs(capture_on(model.device))
        self.model, self.form, self.sizes = GraphModel(model, graphs), form, sizes
        self.device, self.vocab_size = model.device, model.config.vocab_size
        self.steps = self.model.steps

    def seconds(self, run: Callable[[], object]) -> float:
        """Returns how long `run` takes until the device is done."""
        return seconds(self.device, run)

    def fixed(self) -> list[dict[str, Any]]:
        """One canvas after another: every step is made, and a canvas joins the prompt in the next one's first step."""
        sizes, cache = self.sizes, self.prompt(self.sizes.prompt)
        block = self._ids(sizes.canvas, seed=3)[0].tolist()
        spent = [self.canvas_seconds(cache, sizes.prompt, block, seed) for seed in range(sizes.rounds + 2)][2:]
        return [self._steps_row("fixed steps", statistics.median(spent), sizes.fixed_steps, sizes.prompt)]

    def canvas_seconds(self, cache: PromptCache, num_prompt: int, block: Sequence[int], seed: int) -> float:
        """Returns the seconds of one canvas with its fixed steps, after a prompt of which the block becomes part."""
        cache.truncate(num_prompt)
        return self.seconds(lambda: self._denoise(cache, self.sizes.fixed_steps, NEVER, block=block, seed=seed))

    def adaptive(self) -> list[dict[str, Any]]:
        """As many steps as the stop rule takes; random weights are never sure, so this is the whole schedule."""
        cache, spent = self.prompt(self.sizes.prompt), list[float]()
        made = 0

        def run() -> None:
            nonlocal made
            made = self._denoise(cache, SAMPLER.num_steps, SAMPLER.stop)

        for _round in range(3):
            spent.append(self.seconds(run))
        return [self._steps_row("adaptive steps", statistics.median(spent[1:]), made, self.sizes.prompt)]

    def prefill(self, num_tokens: int) -> list[dict[str, Any]]:
        """A cold prompt."""
        ids, spent = self._ids(num_tokens, seed=4), list[float]()
        for _round in range(self.sizes.rounds + 1):
            cache = self._empty(num_tokens)
            spent.append(self.seconds(lambda cache=cache: self._prefill(ids, cache)))
        whole_s = statistics.median(spent[1:])
        per_s, values = round(num_tokens / whole_s, 1), {"prompt_tokens": num_tokens, "canvas": 0}
        values |= {"ms_per_step": round(whole_s * 1e3, 3), "steps": 1, "peak_bytes": self._peak()}
        return [row("prefill", self.form, self.sizes, tokens_per_s=per_s, **values)]

    def inline(self) -> list[dict[str, Any]]:
        """A completion after one typed character: the prompt is warm, several candidates are packed and then ranked."""
        sizes, store = self.sizes, PromptStore(self.model)
        ids = self._ids(sizes.inline_prompt, seed=5)[0].tolist()
        spent = list[float]()
        for number in range(sizes.inline_rounds + sizes.uncounted):
            typed = [*ids[: -4 - number % 3], *self._ids(4, seed=number)[0].tolist()]
            spent.append(self.seconds(lambda typed=typed, number=number: self._complete(store, typed, number)))
        ordered = sorted(spent[sizes.uncounted :])
        found = list[dict[str, Any]]()
        for name, share in (("p50", 0.5), ("p95", 0.95)):
            whole_s = ordered[min(len(ordered) - 1, int(share * len(ordered)))]
            per_step, per_s = round(whole_s * 1e3 / INLINE_PASSES, 3), round(sizes.inline_tokens / whole_s, 1)
            values = {"steps": INLINE_PASSES, "prompt_tokens": sizes.inline_prompt, "canvas": sizes.inline_tokens}
            values |= {"ms_per_step": per_step, "tokens_per_s": per_s, "peak_bytes": self._peak()}
            entry = row(f"inline completion {name}", self.form, sizes, **values)
            found.append(entry)
        return found

    def long_context(self, num_prompt: int) -> list[dict[str, Any]]:
        """Steps after a long prompt, and the memory that it takes."""
        cache = self.prompt(num_prompt)
        spent = [
            self.seconds(lambda: self._denoise(cache, self.sizes.fixed_steps, NEVER))
            for _round in range(min(3, self.sizes.rounds) + 1)
        ][1:]
        case = f"fixed steps behind {num_prompt} tokens"
        return [self._steps_row(case, statistics.median(spent), self.sizes.fixed_steps, num_prompt)]

    def prompt(self, num_tokens: int) -> PromptCache:
        """Returns a prompt of random tokens with room for two canvases."""
        cache = self._empty(num_tokens)
        self._prefill(self._ids(num_tokens, seed=6), cache)
        return cache

    def let_go(self) -> None:
        """Frees the memory of cases, and resets the peak memory."""
        self.steps.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def _complete(self, store: PromptStore, ids: list[int], seed: int) -> None:
        cache = finished(store.encoded("bench", ids, unhurried()))
        assert cache is not None
        sizes = self.sizes
        lengths = [max(1, sizes.inline_tokens // part) for part in (1, 2, 4, 8)]
        head = tuple(range(min(8, sizes.inline_tokens)))
        rows = [Row(num_free=length, head_ids=head, seed=seed + number) for number, length in enumerate(lengths)]
        run = self.denoising(cache, rows, INLINE_PASSES - 1, NEVER)
        with torch.inference_mode():
            for step in range(INLINE_PASSES - 1):
                if step:
                    run.advance([0, 1, 2])
                run.step()
        branches = [Branch(middle_ids=tuple(run.guess(index).ids), suffix_ids=head) for index in run.live]
        likelihoods(self.model, cache, ids[-1], branches, end_ids=frozenset(), banned_ids=[])

    def _denoise(
        self, cache: PromptCache, num_steps: int, stop: StopRule, *, block: Sequence[int] = (), seed: int = 0
    ) -> int:
        """Returns the steps made on one whole canvas."""
        rows = [Row(num_free=self.sizes.canvas, seed=seed)]
        run = self.denoising(cache, rows, num_steps, stop, block)
        with torch.inference_mode():
            while run.steps < num_steps and not run.finished:
                if run.steps:
                    run.advance(run.live)
                run.step()
        return run.steps

    def denoising(
        self,
        cache: PromptCache,
        rows: Sequence[Row],
        num_steps: int,
        stop: StopRule,
        block: Sequence[int] = (),
        *,
        queue: PassQueue | None = None,
    ) -> Denoiser:
        """Returns a run.

        Args:
            cache: its prompt.
            rows: of its canvas.
            num_steps: most steps.
            stop: the rule that ends it earlier.
            block: tokens that its first step adds to the prompt.
            queue: makes its passes with those of other runs; None replays captured steps.
        """
        noise = UniformNoise(vocab_size=self.vocab_size)
        sampler = replace(SAMPLER, num_steps=num_steps, stop=stop, noise=noise)
        canvas, nothing = canvases.start(rows, noise, self.device), torch.tensor([], dtype=torch.int64)
        executor: StepExecutor
        if queue is None:
            executor = GraphExecutor(self.steps, cache, canvas, sampler, suppressed_ids=nothing, block_ids=block)
        else:
            nothing = nothing.to(self.device)
            executor = EagerExecutor(self.model, cache, canvas, sampler, suppressed_ids=nothing, queue=queue)
        return Denoiser(executor, sampler)

    def _steps_row(self, case: str, whole_s: float, steps: int, num_prompt: int) -> dict[str, Any]:
        per_step, per_s = round(whole_s * 1e3 / steps, 3), round(self.sizes.canvas / whole_s, 1)
        values = {"steps": steps, "prompt_tokens": num_prompt, "peak_bytes": self._peak()}
        return row(case, self.form, self.sizes, ms_per_step=per_step, tokens_per_s=per_s, **values)

    def _prefill(self, ids_1T: torch.Tensor, cache: PromptCache) -> None:
        with torch.inference_mode():
            for piece in ids_1T.split(2_048, dim=1):
                self.model.prefill(piece, cache)

    def _empty(self, num_tokens: int) -> PromptCache:
        capacity = num_tokens + 2 * max(self.sizes.canvas, 32)
        return PromptCache(self.model.config, capacity=capacity, dtype=self.model.dtype, device=self.device)

    def _ids(self, count: int, *, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, self.vocab_size, (1, count), generator=generator).to(self.device)

    def _peak(self) -> int:
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0


def seconds(device: torch.device, run: Callable[[], object]) -> float:
    """Returns how long `run` takes until the device is done."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    started = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - started


def unhurried() -> Cancel:
    """Returns a cancel that is never set."""
    return Cancel(deadline_s=time.monotonic() + 3_600, clock=time.monotonic)


def distinct_experts(model: FusedModel, prompt: PromptCache, num_positions: int) -> list[float]:
    """Returns how many experts a random canvas touches in each layer, counted from what the routing kernel chose."""
    chosen: list[torch.Tensor] = []
    layers = model._stack  # pyright: ignore[reportPrivateUsage]
    before = [layer._ops for layer in layers]  # pyright: ignore[reportPrivateUsage]

    def recording(route: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(*args: Any, **kwargs: Any) -> Any:
            routing = route(*args, **kwargs)
            chosen.append(routing.indices_NK)
            return routing

        return recorded

    try:
        for layer, ops in zip(layers, before, strict=True):
            layer._ops = replace(ops, route=recording(ops.route))  # pyright: ignore[reportPrivateUsage]
        ids = torch.randint(0, model.config.vocab_size, (1, num_positions), device=model.device)
        with torch.inference_mode():
            # Not as a replay, which calls no Python.
            FusedModel.decode(model, ids, prompt)
    finally:
        for layer, ops in zip(layers, before, strict=True):
            layer._ops = ops  # pyright: ignore[reportPrivateUsage]
    return [float(indices.unique().numel()) for indices in chosen]
