"""The device, models and sizes that the GPU report measures, and how cases of one model are run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.model.ops import Ops
from gpu_cases import Bench, Sizes
from gpu_model import FULL, SLIDING, random_model, released, tiny
from gpu_plan import PLAIN
from gpu_result import Report

TINY = Sizes(
    canvas=8, prompt=4, fixed_steps=2, prefill=12, inline_prompt=12, inline_tokens=4, long_prompts=(16,), rounds=1,
    inline_rounds=1, uncounted=1, users=(1, 2), users_canvas=6,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSetting:
    """The device, models and sizes to measure.

    Attributes:
        device: where it runs.
        config: of whole models.
        checked: of the models of two layers that are compared with plain PyTorch.
        ops: of whole models.
        sizes: of requests.
        formats: of whole models.
        is_tiny: whether kernels are interpreted on a processor and times mean nothing.
    """

    device: torch.device
    config: ModelConfig
    checked: ModelConfig
    ops: Ops
    sizes: Sizes
    formats: tuple[str, ...]
    is_tiny: bool = False

    @classmethod
    def of_card(cls, formats: Sequence[str]) -> GpuSetting:
        """Models of the released one's size on the first card."""
        both = released([SLIDING, FULL])
        device = torch.device("cuda")
        return cls(
            device=device, config=released(), checked=both, ops=Ops.triton(), sizes=Sizes(), formats=tuple(formats)
        )

    @classmethod
    def of_processor(cls, formats: Sequence[str]) -> GpuSetting:
        """A few thousand weights, in the same code."""
        return cls(
            device=torch.device("cpu"), config=tiny(), checked=tiny(), ops=Ops.fused_reference(), sizes=TINY,
            formats=tuple(formats), is_tiny=True,
        )  # fmt: skip

    def bench(self, form: str) -> Bench:
        """Returns the measurements of a model with random weights."""
        model = random_model(self.config, self.ops, format_of(form), self.device, torch.bfloat16)
        return Bench(model, form, self.sizes)


def format_of(form: str) -> Format | None:
    """Returns a format by its name, None for 16 bits."""
    return None if form == PLAIN else Format(form)


def run_cases(
    setting: GpuSetting, form: str, report: Report, cases: dict[str, Callable[[Bench], list[dict[str, Any]]]]
) -> None:
    """Runs cases of one model, which is made only if one of them is left."""
    left = report.left(list(cases), form)
    made: list[Bench] = []

    def make() -> list[dict[str, Any]]:
        made.append(setting.bench(form))
        return []

    if left and report.guard("weights", form, make, always=True):
        bench = made.pop()
        for name in left:
            bench.let_go()
            report.guard(name, form, lambda name=name: cases[name](bench))
