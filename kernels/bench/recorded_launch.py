"""What a host function would launch on a GPU, recorded on tensors without memory and compiled for any architecture."""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import triton
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel
from triton.runtime.jit import JITFunction

TYPES = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.float8_e4m3fn: "*fp8e4nv",
    torch.uint8: "*u8",
    torch.int8: "*i8",
    torch.int16: "*i16",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.bool: "*i1",
}
OPTIONS = ("num_warps", "num_stages", "maxnreg")
DIVISOR = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One kernel launch: its arguments by name, its options, and how many programs it has."""

    kernel: JITFunction[Any]
    arguments: dict[str, Any]
    options: dict[str, int]
    num_programs: int

    @property
    def name(self) -> str:
        """The kernel's name."""
        return self.kernel.fn.__name__

    def compile(self, architecture: int) -> tuple[CompiledKernel, str]:
        """Compiles for `sm_<architecture>` and returns the result and the log of ptxas.

        The specialisations are the launcher's: pointers and multiples of 16 are known as such, 1 and None as values,
        except for numbers that the kernel excludes from specialisation.
        """
        signature: dict[str, str] = {}
        constants: dict[tuple[int, ...], Any] = {}
        divisible: dict[tuple[int, ...], list[list[Any]]] = {}
        for index, parameter in enumerate(self.kernel.params):
            value = self.arguments[parameter.name]
            is_fixed = not parameter.do_not_specialize
            kind = "constexpr" if parameter.is_constexpr else _kind(value, is_fixed=is_fixed)
            signature[parameter.name] = kind
            if kind == "constexpr":
                constants[(index,)] = value
            elif isinstance(value, Tensor) or (is_fixed and isinstance(value, int) and value % DIVISOR == 0):
                divisible[(index,)] = [["tt.divisibility", DIVISOR]]
        source = ASTSource(self.kernel, signature, constants, divisible)
        said = io.StringIO()
        with knobs.compilation.scope(), knobs.nvidia.scope(), contextlib.redirect_stdout(said):
            knobs.compilation.always_compile = True
            knobs.nvidia.dump_ptxas_log = True
            compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=self.options)
        return compiled, said.getvalue()


def record(call: Callable[[], object]) -> list[Launch]:
    """Runs a host function and returns what it would have launched; nothing runs."""
    launches: list[Launch] = []

    def run(self: JITFunction[Any], *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        options = {name: kwargs.pop(name) for name in OPTIONS if name in kwargs}
        bound = inspect.signature(self.fn).bind(*args, **kwargs)
        num_programs = 1
        for size in grid:
            num_programs *= size
        launches.append(
            Launch(kernel=self, arguments=dict(bound.arguments), options=options, num_programs=num_programs)
        )

    with patch.object(JITFunction, "run", run):
        call()
    return launches


def _kind(value: Any, *, is_fixed: bool) -> str:
    if isinstance(value, Tensor):
        return TYPES[value.dtype]
    if value is None or (is_fixed and isinstance(value, int) and value == 1):
        return "constexpr"
    return "fp32" if isinstance(value, float) else "i32"
