"""A model folder or GGUF file to the model that runs on a device: fused on a GPU, packed where it is small, else plain.

Checks first whether the model fits the device, and whether its kernels can be built there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from dgemma_engine.backends.cpu.model import pack_for_cpu
from dgemma_engine.backends.cuda.executors import CudaExecutors
from dgemma_engine.backends.cuda.fuse import fuse
from dgemma_engine.backends.cuda.graph_model import GraphModel
from dgemma_engine.backends.cuda.graphs import Graphs, capture_on
from dgemma_engine.backends.cuda.model import FusedModel
from dgemma_engine.backends.memory_plan import stored_plan
from dgemma_engine.checkpoint.loader import load_model
from dgemma_engine.diffusion.eager_executor import EagerExecutor
from dgemma_engine.diffusion.pass_queue import PassQueue
from dgemma_engine.diffusion.step_executor import ExecutorFactory
from dgemma_engine.model.devices import free_memory, weight_dtype
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.ops import Ops

# Room for canvases after the longest prompt.
_CANVAS_ROOM_TOKENS = 512

_log = logging.getLogger(__name__)


def load_runnable(
    path: Path, *, device: torch.device, ops: Ops | None, prompt_tokens: int, report: Callable[[int], None]
) -> DiffusionModel:
    """Reads a model.

    Args:
        path: see `loader.load_model`.
        device: where the model runs.
        ops: operations it calls; None takes kernels on CUDA and plain PyTorch elsewhere.
        prompt_tokens: of the longest prompt.
        report: called with the percentage read so far.

    Raises:
        CheckpointError: the checkpoint cannot be used, the model does not fit the card, or the operations cannot run
            there; the message names the file or key, or has the numbers, and the remedy.
    """
    dtype = weight_dtype(device)
    context_tokens = prompt_tokens + _CANVAS_ROOM_TOKENS
    plan = stored_plan(path, context_tokens=context_tokens, device_type=device.type, dtype=dtype)
    plan.require(free_memory(device), str(device))
    ops = Ops.of_device(device) if ops is None else ops
    if ops.fused is not None:
        # Before the weights are read; the formats of the weights are checked once they are there.
        ops.fused.require(device, frozenset())
    model = load_model(path, ops, device=device, dtype=dtype, report=report)
    made = fuse(model, ops)
    return GraphModel(made, Graphs(capture_on(device))) if isinstance(made, FusedModel) else pack_for_cpu(model)


def executor_factory(model: DiffusionModel) -> ExecutorFactory:
    """Returns what starts a model's denoising steps; runs that take turns make their passes together."""
    if isinstance(model, GraphModel):
        return CudaExecutors(model, report=_log.warning)
    return partial(EagerExecutor, model, queue=PassQueue(model, report=_log.warning))
