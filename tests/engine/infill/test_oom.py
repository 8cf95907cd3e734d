"""A request that needs more memory than there is fails alone: the next one is answered by the same engine."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.errors import EngineFault
from dgemma_engine.infill.engine import Engine
from dgemma_engine.infill.oom import freeing_on_exhaustion
from dgemma_engine.ipc.endpoint import EMBEDDED
from dgemma_engine.model.ops import Ops
from dgemma_engine.protocol.messages import Context
from dgemma_engine.scheduling.cancellation import Cancel
from dgemma_engine.scheduling.cooperative import Pieces, finished

CPU = torch.device("cpu")
EXHAUSTED = RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: 9 bytes")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), EXHAUSTED])
def test_what_the_failed_request_held_is_let_go_before_the_fault_is_raised(error: BaseException) -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def run() -> Pieces[None]:
        yield
        tensor = torch.zeros(9)
        held.append(weakref.ref(tensor))
        raise error

    freed: list[bool] = []
    with pytest.raises(EngineFault, match="out of memory on cpu; the request was dropped"):
        finished(freeing_on_exhaustion(run(), lambda: freed.append(True), CPU))
    error.__traceback__ = None
    assert freed == [True]
    assert held[0]() is None


def test_other_faults_pass() -> None:
    def run() -> Pieces[None]:
        yield
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        finished(freeing_on_exhaustion(run(), lambda: pytest.fail("nothing was exhausted"), CPU))


def test_the_engine_answers_the_next_request() -> None:
    exhausted = [False]
    reference = Ops.reference()

    def softcap(logits_NV: torch.Tensor, cap: float) -> torch.Tensor:
        if exhausted[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return reference.softcap(logits_NV, cap)

    engine = Engine.load(
        model_folder(EMBEDDED), device="cpu", report=lambda _percent, _message: None,
        ops=replace(reference, softcap=softcap),
    )  # fmt: skip
    context = Context(document="a", prefix="width = 3\nheight = 4\narea = wid", suffix="\n", deadline_ms=60_000)
    patience = Cancel(deadline_s=1e6, clock=lambda: 0.0)
    before = engine.infill(context, patience)
    exhausted[0] = True
    with pytest.raises(EngineFault, match="dgemma-engine plan MODEL says what fits"):
        engine.infill(context, patience)
    exhausted[0] = False
    after = engine.infill(context, patience)
    assert (after.text, after.finish) == (before.text, before.finish)
