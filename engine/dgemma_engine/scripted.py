"""Modules that run without Python between their operations, where this torch can do that.

A small model on a processor makes hundreds of small operations, and Python between them takes longer than some of them.
TorchScript calls them from compiled code. Torch advises against it by now: a module that cannot be compiled runs as it
is, with the same results, only slower.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import nn


def scripted(module: nn.Module) -> Callable[..., Any]:
    """Returns what calls `module`, compiled where that works.

    Args:
        module: in TorchScript's part of Python; what it holds is taken as it is now.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # Of the method itself: a module looks for hooks at every call.
            return cast(Any, torch.jit.script(module)).forward
        except Exception:  # whatever a torch without TorchScript raises, or one that meets what it does not know
            return module


def unspecialised() -> AbstractContextManager[None]:
    """Lets scripted modules run as they are written: one program each, not one for every shape they see."""
    return cast(Any, torch.jit).optimized_execution(False)
