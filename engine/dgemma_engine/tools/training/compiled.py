"""The parts of a training step that gain most from `torch.compile`, compiled.

Everything between attention and the next layer, and the projections before it: chains of element-wise work that eager
PyTorch runs one pass over memory at a time. Needs a C++ compiler on a CPU.
"""

from __future__ import annotations

from types import MethodType

import torch

from dgemma_engine.model.layers import Attention, Layer
from dgemma_engine.model.transformer import DiffusionGemma


def compile_layers(model: DiffusionGemma) -> None:
    """Replaces the hot methods of every layer by compiled ones, in place."""
    finish = torch.compile(Layer._finish, dynamic=True)  # pyright: ignore[reportPrivateUsage]
    project = torch.compile(Attention._project, dynamic=True)  # pyright: ignore[reportPrivateUsage]
    for layer in model.layers:
        assert isinstance(layer, Layer)
        layer._finish = MethodType(finish, layer)  # pyright: ignore[reportPrivateUsage]
        layer.self_attn._project = MethodType(project, layer.self_attn)  # pyright: ignore[reportPrivateUsage]
