"""A request that needs more memory than there is fails alone: the next one is answered by the same engine."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.errors import EngineFault
from dgemma_engine.infill.engine import Engine
from dgemma_engine.model.ops import Ops
from dgemma_engine.model_store.catalogue import TINY
from dgemma_engine.protocol.messages import Context
from dgemma_engine.scheduling.timing import Cancel

EXHAUSTED = RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: 9 bytes")
CONTEXT = Context(document="a", prefix="width = 3\nheight = 4\narea = wid", suffix="\n", deadline_ms=60_000)
PATIENCE = Cancel(deadline_s=1e6, clock=lambda: 0.0)


class FailingOps:
    """Operations that raise an error while one is set, and keep a weak reference to the input of the failing call."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.held: weakref.ref[torch.Tensor] | None = None
        self._reference = Ops.reference()

    def ops(self) -> Ops:
        return replace(self._reference, softcap=self._softcap)

    def _softcap(self, logits_NV: torch.Tensor, cap: float) -> torch.Tensor:
        if self.error is not None:
            self.held = weakref.ref(logits_NV)
            raise self.error
        return self._reference.softcap(logits_NV, cap)


@pytest.fixture(scope="module")
def failing() -> FailingOps:
    return FailingOps()


@pytest.fixture(scope="module")
def engine(failing: FailingOps) -> Engine:
    with pytest.MonkeyPatch.context() as patch:
        # The packed model of a processor runs compiled code; the plain one calls the operations it was given.
        patch.setattr("dgemma_engine.backends.cpu.model.is_small", lambda *_any: False)
        folder = model_folder(TINY)
        return Engine.load(folder, device="cpu", report=lambda _percent, _message: None, ops=failing.ops())


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), EXHAUSTED])
def test_failed_request_frees_what_it_held_and_the_next_one_is_answered(
    engine: Engine, failing: FailingOps, error: BaseException
) -> None:
    before = engine.infill(CONTEXT, PATIENCE)
    failing.error = error
    with pytest.raises(EngineFault, match=r"out of memory on cpu; the request was dropped.*dgemma-engine plan MODEL"):
        engine.infill(CONTEXT, PATIENCE)
    failing.error = error.__traceback__ = None
    assert failing.held is not None
    assert failing.held() is None
    after = engine.infill(CONTEXT, PATIENCE)
    assert (after.text, after.finish) == (before.text, before.finish)


def test_other_errors_are_raised(engine: Engine, failing: FailingOps) -> None:
    failing.error = RuntimeError("shapes differ")
    with pytest.raises(RuntimeError, match="shapes differ"):
        engine.infill(CONTEXT, PATIENCE)
    failing.error = None
