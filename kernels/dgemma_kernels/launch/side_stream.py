"""Two pieces of independent work at once on one card: one on the current stream, one on a stream beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import torch

from dgemma_kernels.launch.launch_table import LaunchTable, for_device

Side = TypeVar("Side")
Own = TypeVar("Own")


def beside(
    side: Callable[[], Side], own: Callable[[], Own], device: torch.device, *, table: LaunchTable | None = None
) -> tuple[Side, Own]:
    """Returns what both pieces of work return; whatever is launched afterwards runs after both.

    The second stream waits for what was launched before, and the current one for the second at the end, so a graph
    that captures the current stream captures both. Tensors need no `record_stream`: the second stream alone reuses what
    it allocates, after it has waited again, and the caller must hold what `side` reads until both have returned.

    Args:
        side: reads nothing that `own` writes; runs on the second stream where the table's `ROUTE_BESIDE` is set.
        own: runs on the current stream.
        device: of both.
        table: how to launch; by default the device's.
    """
    if device.type != "cuda" or not (table or for_device(device)).of("pass")["ROUTE_BESIDE"]:
        return side(), own()
    current, second = torch.cuda.current_stream(device), _second(device)
    second.wait_stream(current)
    try:
        with torch.cuda.stream(second):
            first = side()
        return first, own()
    finally:
        # Also after a failure: a capture cannot end while a stream that it has forked is not joined.
        current.wait_stream(second)


@functools.cache
def _second(device: torch.device) -> torch.cuda.Stream:
    """Returns the second stream of a card."""
    return torch.cuda.Stream(device)
