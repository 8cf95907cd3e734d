"""Modules that run without Python between their operations, where this torch can do that.

A small model on a processor makes hundreds of small operations, and Python between them takes longer than some of them.
TorchScript calls them from compiled code. Torch has deprecated it: a module that cannot be compiled runs as it is, with
the same results, only slower, and the reason is returned with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted:
    """A module to call.

    Attributes:
        call: calls the module.
        refusal: why `call` is not compiled, one line; empty if it is.
    """

    call: Callable[..., Any]
    refusal: str


def scripted(module: nn.Module) -> Scripted:
    """Compiles a module, where that works.

    Args:
        module: in TorchScript's part of Python; its attributes are read once.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # The method itself: calling the module would check for hooks each time.
            return Scripted(call=cast(Any, torch.jit.script(module)).forward, refusal="")
        except Exception as error:  # whatever a torch without TorchScript raises, or one that refuses the module
            return Scripted(call=module, refusal=_first_sentence(error))


def unspecialised() -> AbstractContextManager[None]:
    """Runs scripted modules unspecialised: one program each, not one per shape."""
    return cast(Any, torch.jit).optimized_execution(False)


def _first_sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
