"""Whether kernels compute what plain PyTorch does, in the sizes and variants that serve.

`operations` passes prompts and canvases through one layer of each kind and the vocabulary, every operation compared
with its plain twin (`gpu_checked_ops.py`). `tokens` denoises canvases three ways: captured, uncaptured, and in plain
PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from dgemma_engine.backends.cuda.graph_executor import GraphExecutor
from dgemma_engine.backends.cuda.graphs import Graphs, capture_on
from dgemma_engine.backends.cuda.model import FusedModel
from dgemma_engine.backends.cuda.step_graphs import StepGraphs
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.diffusion import canvas as canvases
from dgemma_engine.diffusion.canvas import Row
from dgemma_engine.diffusion.denoiser import Denoiser
from dgemma_engine.diffusion.sampler import StableAndConfident, UniformNoise
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import FusedOps, Ops
from dgemma_kernels.tensors.formats import Rows
from gpu_cases import SAMPLER, Sizes
from gpu_checked_ops import Comparison, checked
from gpu_model import random_model

# Share of positions whose likeliest token after one step is that of plain PyTorch, which rounds elsewhere.
LEAST_SHARE = 0.75
NUM_STEPS = 4
NEVER = StableAndConfident(num_earlier=10_000, confidence=0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """The checks of one device.

    Attributes:
        device: where it runs.
        config: a layer of each kind.
        sizes: `canvas`, `prompt` and `prefill` are used.
        ops: of `tokens`.
    """

    device: torch.device
    config: ModelConfig
    sizes: Sizes
    ops: Ops

    def operations(self, form: Format | None, ours: FusedOps | None = None) -> dict[str, dict[str, Any]]:
        """Returns calls and errors of every operation, by its name.

        Args:
            form: of the weights.
            ours: the operations compared with plain PyTorch; by default the kernels.

        Raises:
            ValueError: an operation is further from its plain twin than rounding explains.
        """
        found: dict[str, Comparison] = {}
        fused = checked(ours or FusedOps.triton(), FusedOps.reference(), found)
        model = random_model(self.config, replace(Ops.reference(), fused=fused), form, self.device, torch.bfloat16)
        sizes, ids = self.sizes, _ids(self.config, 2 * self.sizes.prefill, self.device)
        with torch.inference_mode(), poisoned():
            cache = self._empty(model, 2 * sizes.prefill)
            model.encode(ids[:, : sizes.prefill], cache)
            cache.truncate(sizes.prompt)
            block, canvas = ids[:, : sizes.canvas], ids[:, -sizes.canvas :]
            model.decode(canvas, cache)
            soft = model.embed_tokens(ids[:, : sizes.canvas])
            hidden_1LD = model.decode_after(block, canvas, cache, soft_BLD=soft)
            model.encode(ids[:, :5], cache)
            logits_LV = model.vocabulary_logits(Rows(data_ND=hidden_1LD[0].contiguous()))
            levels_L = torch.rand(sizes.canvas, generator=torch.Generator().manual_seed(7)).to(self.device)
            temperature_1 = torch.full((1,), 0.6, device=self.device)
            distribution = model.token_distribution(logits_LV, temperature_1, levels_L, None)
            model.expected_embeddings(distribution.probs_NV)
        wrong = [f"{name}: {one.wrong}" for name, one in found.items() if one.wrong]
        if wrong:
            raise ValueError("; ".join(wrong))
        return {
            name: {"calls": one.calls, "error": round(one.error, 6), "worst_row": round(one.worst_row, 6)}
            for name, one in found.items()
        }

    def tokens(self, form: Format | None) -> dict[str, Any]:
        """Returns how many canvases were replayed, and the share of tokens equal to plain PyTorch's.

        Raises:
            ValueError: captured and uncaptured steps differ, or plain PyTorch gives other tokens.
        """
        # On a processor floats are exact enough for the very same tokens.
        exact = self.device.type == "cpu" and form is None
        dtype = torch.float32 if exact else torch.bfloat16
        model = random_model(self.config, self.ops, form, self.device, dtype)
        captured = StepGraphs(model, Graphs(capture_on(self.device)))
        uncaptured = StepGraphs(model, Graphs(capture_on(self.device), most=0))
        cache, canvas = self._prompt(model), self.sizes.canvas
        # Larger ones first, so that replays for smaller ones run in memory with their leftovers.
        for rows in ([(canvas, 1)], [(canvas, 2)], [(canvas // 2, 3), (canvas // 4, 4)], [(canvas, 5)]):
            got, expected = (self._denoised(steps, cache, rows, NUM_STEPS) for steps in (captured, uncaptured))
            if got != expected:
                raise ValueError(f"captured steps give other tokens than uncaptured ones, (length, seed) {rows}")
        num_captured = captured._graphs.num_captured  # pyright: ignore[reportPrivateUsage]
        if not num_captured:
            raise ValueError("nothing was captured: see the warning above")
        plain = random_model(self.config, Ops.fused_reference(), form, self.device, dtype)
        steps = StepGraphs(plain, Graphs(capture_on(self.device), most=0))
        num_steps, least = (NUM_STEPS, 1.0) if exact else (1, LEAST_SHARE)
        (ours,) = self._denoised(uncaptured, cache, [(canvas, 6)], num_steps)
        (theirs,) = self._denoised(steps, self._prompt(plain), [(canvas, 6)], num_steps)
        share = sum(a == b for a, b in zip(ours, theirs, strict=True)) / canvas
        if share < least:
            raise ValueError(f"{share:.0%} of the tokens are those of plain PyTorch, must be >= {least:.0%}")
        return {"captured": num_captured, "share_of_plain": round(share, 4), "steps": num_steps}

    def _denoised(
        self, steps: StepGraphs, cache: PromptCache, rows: list[tuple[int, int]], num_steps: int
    ) -> list[list[int]]:
        """Returns the tokens of canvases of some lengths and seeds."""
        noise = UniformNoise(vocab_size=self.config.vocab_size)
        placed = [Row(num_free=length, seed=seed) for length, seed in rows]
        sampler = replace(SAMPLER, num_steps=num_steps, stop=NEVER, noise=noise)
        canvas = canvases.start(placed, noise, self.device)
        nothing = torch.tensor([], dtype=torch.int64)
        run = Denoiser(GraphExecutor(steps, cache, canvas, sampler, suppressed_ids=nothing), sampler)
        with torch.inference_mode():
            for step in range(num_steps):
                if step:
                    run.advance(run.live)
                run.step()
        return [list(run.guess(index).ids) for index in run.live]

    def _prompt(self, model: FusedModel) -> PromptCache:
        cache = self._empty(model, self.sizes.prompt)
        with torch.inference_mode():
            model.prefill(_ids(self.config, self.sizes.prompt, self.device), cache)
        return cache

    def _empty(self, model: FusedModel, num_tokens: int) -> PromptCache:
        capacity = num_tokens + 2 * max(self.sizes.canvas, 32)
        return PromptCache(self.config, capacity=capacity, dtype=model.dtype, device=self.device)


@contextmanager
def poisoned() -> Iterator[None]:
    """Fills new memory with NaN, so that a value that no kernel writes is found."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=before)


def _ids(config: ModelConfig, count: int, device: torch.device) -> torch.Tensor:
    return torch.randint(0, config.vocab_size, (1, count), generator=torch.Generator().manual_seed(6)).to(device)
