"""Time of one host call on the device with its tensors in memory, not in the cache: graph replays over copies.

A call's tensors are copied until all copies together are larger than twice the L2 cache, and one captured
graph runs the copies in turn, so that no copy's data is left from its last turn and no launch waits for the host.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import full_size
import torch
from dgemma_kernels.launch.launch_table import LaunchTable

# Cache size assumed for cards whose driver does not report it.
LARGEST_L2 = 128 * 2**20
MOST_COPIES, LEAST_LAUNCHES, REPLAYS = 256, 12, 7


class ColdCalls:
    """Copies of one call, each with tensors of its own.

    Args:
        case: what is launched.
        device: where.

    Attributes:
        num_copies: how many.
    """

    def __init__(self, case: full_size.Case, device: torch.device) -> None:
        self._case, self._device = case, device
        self._calls = [case.prepare(device)]
        if device.type == "cuda":
            before = torch.cuda.memory_allocated(device)
            self._calls.append(case.prepare(device))
            each = torch.cuda.memory_allocated(device) - before
            self._calls += [case.prepare(device) for _ in range(copies(each, l2_bytes(device)) - 2)]
        self.num_copies = len(self._calls)

    def result(self, table: LaunchTable) -> object:
        """Returns what the call computes from fresh tensors, the same ones each time: some calls change theirs."""
        torch.manual_seed(0)
        return self._case.prepare(self._device)(table)

    def seconds(self, table: LaunchTable) -> float:
        """Returns the seconds of one call: the median of several replays; on a processor, of one run.

        Raises:
            RuntimeError: the table's entry does not compile, or does not fit the card.
        """
        for call in self._calls:
            call(table)
        if self._device.type != "cuda":
            return timed(lambda: self._calls[0](table))
        rounds = -(-LEAST_LAUNCHES // self.num_copies)

        def all_in_turn() -> None:
            for _ in range(rounds):
                for call in self._calls:
                    call(table)

        return replayed(all_in_turn, self._device) / (rounds * self.num_copies)


def copies(each_bytes: int, cache_bytes: int) -> int:
    """Returns how many sets of `each_bytes` exceed twice the cache, from 2 to `MOST_COPIES`."""
    return min(MOST_COPIES, max(2, 2 * cache_bytes // max(1, each_bytes) + 1))


def l2_bytes(device: torch.device) -> int:
    """Returns the size of the card's L2 cache."""
    return getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0) or LARGEST_L2


def replayed(work: Callable[[], object], device: torch.device) -> float:
    """Returns the median seconds of a replay of work that has run before."""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize(device)
    with torch.cuda.graph(graph):
        work()
    graph.replay()
    spent = list[float]()
    for _ in range(REPLAYS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize(device)
        spent.append(start.elapsed_time(end) / 1e3)
    return statistics.median(spent)


def timed(work: Callable[[], object]) -> float:
    """Returns the seconds of one run on a processor."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
