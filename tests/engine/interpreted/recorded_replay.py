"""A stand-in for CUDA graphs on a CPU: tensor operations and kernel launches, recorded with their tensors.

A replay runs no Python of the recorded work: every operation is repeated on the same memory, in the same order, as a
graph's nodes are. An operation that would wait for the device raises an error, as in a capture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from dgemma_engine.backends.cuda.graphs import Work
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.runtime.interpreter import GridExecutor

_WAITING = ("_local_scalar_dense", "nonzero", "equal")


class _Recorder(TorchDispatchMode):
    """Runs operations and appends a function that repeats each."""

    def __init__(self, steps: list[Work]) -> None:
        super().__init__()
        self.steps, self.is_launching = steps, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if not self.is_launching:
            name = func.overloadpacket.__name__
            if name in _WAITING:
                raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
            self.steps.append(lambda: _repeat(func, args, kwargs or {}, made))
        return made


def _repeat(func: Any, args: Any, kwargs: Any, made: Any) -> None:
    for old, new in zip(tree_leaves(made), tree_leaves(func(*args, **kwargs)), strict=True):
        if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
            old.copy_(new)


@contextmanager
def _recorded_launches(recorder: _Recorder) -> Iterator[None]:
    launch: Callable[..., None] = GridExecutor.__call__

    def run(self: Any, *args: Any, **kwargs: Any) -> None:
        recorder.is_launching = True
        launch(self, *args, **kwargs)
        recorder.is_launching = False
        recorder.steps.append(lambda: launch(self, *args, **kwargs))

    GridExecutor.__call__ = run  # type: ignore[method-assign]
    try:
        yield
    finally:
        GridExecutor.__call__ = launch  # type: ignore[method-assign]


def record(work: Work) -> Work:
    """Runs `work` and returns a function that replays it: a `Capture`."""
    steps = list[Work]()
    recorder = _Recorder(steps)
    with _recorded_launches(recorder), recorder:
        work()

    @torch.inference_mode()
    def replay() -> None:
        for step in steps:
            step()

    return replay
