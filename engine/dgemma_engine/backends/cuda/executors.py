"""Chooses the executor that runs the denoising steps of a canvas on a card.

A run that is alone replays whole steps. While others are under way, its passes are queued and made in one batch with
theirs, so that the weights are read once for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from torch import Tensor

from dgemma_engine.backends.cuda.graph_executor import GraphExecutor
from dgemma_engine.backends.cuda.graph_model import GraphModel
from dgemma_engine.diffusion.canvas import Canvas
from dgemma_engine.diffusion.eager_executor import EagerExecutor
from dgemma_engine.diffusion.pass_queue import PassQueue
from dgemma_engine.diffusion.sampler import Sampler
from dgemma_engine.diffusion.step_executor import StepExecutor
from dgemma_engine.model.kv_cache import PromptCache


class CudaExecutors:
    """An `ExecutorFactory`.

    Args:
        model: runs the steps.
        report: see `PassQueue`.

    Attributes:
        queue: of passes that are made together.
    """

    def __init__(self, model: GraphModel, *, report: Callable[[str], None] | None = None) -> None:
        self._model, self.queue = model, PassQueue(model, report=report)
        self._running: WeakKeyDictionary[StepExecutor, PromptCache] = WeakKeyDictionary()

    def __call__(
        self,
        cache: PromptCache,
        canvas: Canvas,
        sampler: Sampler,
        *,
        suppressed_ids: Tensor,
        block_ids: Sequence[int] = (),
    ) -> StepExecutor:
        """See `ExecutorFactory`."""
        # A run's next canvas begins while its last one is still held.
        has_company = any(other is not cache for other in self._running.values())
        parts = (cache, canvas, sampler)
        executor: StepExecutor
        if has_company:
            executor = EagerExecutor(
                self._model, *parts, suppressed_ids=suppressed_ids, block_ids=block_ids, queue=self.queue
            )
        else:
            executor = GraphExecutor(self._model.steps, *parts, suppressed_ids=suppressed_ids, block_ids=block_ids)
        self._running[executor] = cache
        return executor
