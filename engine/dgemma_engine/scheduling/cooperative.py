"""Work in pieces: a generator that yields wherever it may be left for other work, and returns its result.

A piece is the work between two yields: a denoising step, a forward pass, a part of a prompt. Independent of the kind of
work; the caller that runs the pieces decides which work is next.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

Pieces = Generator[None, None, T]
"""Work that may be paused or dropped at each yield."""


def finished(work: Pieces[T]) -> T:
    """Does all pieces one after another and returns the result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value
