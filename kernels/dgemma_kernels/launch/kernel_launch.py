"""Starting a Triton kernel, and the sizes that a start needs, with types that Triton's own functions lack."""

from __future__ import annotations

from typing import Any


def launch(kernel: Any, grid: tuple[int, ...], *arguments: object, **constants: object) -> None:
    """Starts `kernel` in `grid` programs on the current stream.

    Args:
        kernel: of a `_*.py` file.
        grid: programs along up to three axes.
        arguments: by position: tensors, numbers and None.
        constants: by name: compile-time values, `num_warps`, `num_stages`.
    """
    kernel[grid](*arguments, **constants)


def num_blocks(size: int, block: int) -> int:
    """Returns how many blocks hold `size`."""
    return -(-size // block)


def power_of_two(size: int) -> int:
    """Returns the smallest power of two that is at least `size`."""
    return 1 << (size - 1).bit_length()
