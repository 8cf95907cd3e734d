"""Device work that is recorded once and repeated: a piece of work seen for the second time is captured, then replayed.

A piece of work is a function that reads and writes tensors at fixed addresses: values that it reads from
Python are read when it is captured, never again. The first time it just runs, which also compiles its kernels.
Independent of models; a `Capture` does the capturing, so that all but the capture itself runs, and is tested, without
a GPU.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Protocol

import torch

logger = logging.getLogger(__name__)

MOST_GRAPHS = 64

Work = Callable[[], None]


class Capture(Protocol):
    """How work is recorded."""

    def __call__(self, work: Work) -> Work:
        """Returns a function that repeats `work`, which need not have run yet."""
        ...


def repeat(work: Work) -> Work:
    """Records nothing: work is repeated by running it again."""
    return work


class CudaCapture:
    """Records CUDA graphs that share one pool of memory: they never run at the same time, and results lie outside.

    Args:
        device: whose current stream they run on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._renew()

    def __call__(self, work: Work) -> Work:
        """Returns the replay of the kernels that `work` starts.

        The thread's stream is afterwards what it was before, whether the capture succeeds or not. `torch.cuda.graph`
        leaves the thread on its own stream when a capture fails, and empties the allocator's cache each time.

        Raises:
            RuntimeError: `work` cannot be captured.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device):
            stream = self._stream
            stream.wait_stream(torch.cuda.current_stream())
            try:
                with torch.cuda.stream(stream):
                    graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                    try:
                        work()
                    finally:
                        graph.capture_end()
            except RuntimeError:
                # What was allocated during a failed capture may never be returned to its pool.
                self._renew()
                raise
            torch.cuda.current_stream().wait_stream(stream)
        return graph.replay

    def _renew(self) -> None:
        with torch.cuda.device(self._device):
            self._stream = torch.cuda.Stream()
            self._pool = torch.cuda.graph_pool_handle()


def capture_on(device: torch.device) -> Capture:
    """Returns the capture for a device."""
    return CudaCapture(device) if device.type == "cuda" else repeat


class Graphs:
    """The most recent pieces of work.

    Args:
        capture: how work is recorded.
        most: pieces kept; the one used longest ago goes first. 0 records nothing: work always runs afresh.

    Attributes:
        num_captured: pieces recorded so far.
    """

    def __init__(self, capture: Capture, *, most: int = MOST_GRAPHS) -> None:
        if most < 0:
            raise ValueError(f"{most=} must not be negative")
        self._capture, self._most = capture, most
        self._known: OrderedDict[Hashable, Work | None] = OrderedDict()
        self.num_captured = 0

    @property
    def num_known(self) -> int:
        """Pieces that were seen and are kept, recorded or not."""
        return len(self._known)

    def run(self, key: Hashable, work: Work) -> None:
        """Does `work`, by repeating the one recorded under `key` if there is one.

        Args:
            key: of all inputs of `work` other than tensors at fixed addresses, and of those addresses.
            work: does not wait for the device, and allocates by `key` alone.
        """
        if not self._most:
            work()
            return
        known = key in self._known
        recorded = self._known.pop(key, None)
        if not known:
            work()
        else:
            recorded = recorded or self._recorded(work)
            recorded()
        self._known[key] = recorded
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def _recorded(self, work: Work) -> Work:
        try:
            recorded = self._capture(work)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            logger.warning("work could not be captured in a CUDA graph and runs without one, slower: %s", error)
            return work
        self.num_captured += 1
        return recorded

    def clear(self) -> None:
        """Drops all pieces and frees their memory."""
        self._known.clear()
