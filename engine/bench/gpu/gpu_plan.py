"""The parts of the GPU report, in order of worth, with the seconds that each may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
PLAIN = "bf16"
ALL_FORMATS = (PLAIN, "fp8", "int8", "int4", "nvfp4")
# Seconds for everything.
BUDGET_S = 300.0
# Fewer seconds are not worth a new process, which imports torch first.
LEAST_S = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the report, which runs in a process of its own.

    Attributes:
        name: as `--parts` takes it.
        limit_s: most seconds.
        is_check: whether a failure means that results are wrong, not only that something was not measured.
    """

    name: str
    limit_s: float
    is_check: bool = False


def parts_of(formats: Sequence[str]) -> list[Part]:
    """Returns all parts for whole models in these formats.

    `layers` compares every operation of a layer with plain PyTorch, `tokens` captured steps with uncaptured ones;
    `tests` runs the tests of kernels compiled; a format's name stands for its fixed steps; `gains` measures what the
    launch tables leave off, with and without.
    """
    return [
        Part(name="layers", limit_s=90, is_check=True),
        Part(name="tokens", limit_s=45, is_check=True),
        Part(name="tests", limit_s=60, is_check=True),
        *(Part(name=form, limit_s=45) for form in formats),
        Part(name="kernels", limit_s=45),
        Part(name="gains", limit_s=90),
        Part(name="requests", limit_s=75),
        Part(name="transformers", limit_s=60),
        Part(name="long", limit_s=45),
        Part(name="tune", limit_s=600),
    ]
