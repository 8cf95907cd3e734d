"""The samples of each step, drawn ahead by threads where a device waits for them: a function of seed and step."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from random import Random

from dgemma_engine.tools.adaptation.config import AdaptConfig
from dgemma_engine.tools.adaptation.samples import Sample, SampleDrawer


class SampleStream:
    """Steps of samples.

    Args:
        drawer: of the files to train on.
        config: of the run.
    """

    def __init__(self, drawer: SampleDrawer, config: AdaptConfig) -> None:
        self._drawer, self._config = drawer, config

    def at(self, step: int) -> list[Sample]:
        """Returns the samples of a step, whatever was drawn before."""
        random, shape = Random(f"{self._config.seed} {step}"), self._config.samples
        return [self._drawer.draw(random, num_holes=shape.holes) for _ in range(shape.documents)]

    def since(self, step: int) -> Generator[list[Sample]]:
        """Yields the samples of a step and of those after it, without end."""
        num_workers, steps = self._config.num_workers, count(step)
        if num_workers == 0:
            yield from map(self.at, steps)
            return
        # Tokenising, the largest part, runs outside of Python's lock.
        with ThreadPoolExecutor(num_workers) as pool:
            ahead: deque[Future[list[Sample]]] = deque(
                pool.submit(self.at, next(steps)) for _ in range(2 * num_workers)
            )
            while True:
                ahead.append(pool.submit(self.at, next(steps)))
                yield ahead.popleft().result()
