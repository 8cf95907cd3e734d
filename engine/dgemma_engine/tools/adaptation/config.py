"""What a run is made of: adapter, samples, optimiser and the times at which it reports; checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dgemma_engine.errors import TrainingError
from dgemma_engine.tools.training.optimization.schedule import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """Shape of what a step reads.

    Attributes:
        documents: windows of files a step.
        holes: most holes in each of them.
        holes_at_end: most holes that end at one place and so share a suffix, whose encoding costs more than a hole.
        window_characters: most text of a document; about 3.5 characters are a token.
        block_tokens: most tokens of a hole's block: some of the prefix, the middle and its end.
        suffix_tokens: most suffix tokens; as many places are reserved before the document.
        python_weight: how many times as often Python is drawn as each other language.
    """

    documents: int = 1
    holes: int = 48
    holes_at_end: int = 3
    window_characters: int = 2_800
    block_tokens: int = 48
    suffix_tokens: int = 56
    python_weight: float = 4.0

    def __post_init__(self) -> None:
        least = {
            "documents": 1,
            "holes": 1,
            "holes_at_end": 1,
            "window_characters": 64,
            "block_tokens": 4,
            "suffix_tokens": 1,
        }
        for name, value in least.items():
            _at_least(f"samples.{name}", getattr(self, name), value)
        if not self.python_weight > 0:
            raise TrainingError(f"samples.python_weight={self.python_weight} must be more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW without decay.

    Attributes:
        rate: step size while it is constant; LoRA's best is about ten times that of full training.
        beta2: of the second moment; small batches need a short average.
        max_norm: gradients longer than this are cut to it.
        average_decay: of the moving average that is measured and written; 0 keeps the last step alone.
        merge_steps: steps between two merges of the factors into the weights that encode documents.
    """

    rate: float = 7e-4
    beta2: float = 0.99
    max_norm: float = 1.0
    average_decay: float = 0.995
    merge_steps: int = 8

    def __post_init__(self) -> None:
        for name in ("rate", "max_norm"):
            if not getattr(self, name) > 0:
                raise TrainingError(f"optimizer.{name}={getattr(self, name)} must be more than 0")
        for name in ("beta2", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise TrainingError(f"optimizer.{name}={getattr(self, name)} must be from 0 to less than 1")
        _at_least("optimizer.merge_steps", self.merge_steps, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """Held-out holes: the same at every evaluation.

    Attributes:
        documents: windows of files.
        holes: most holes in each.
    """

    documents: int = 24
    holes: int = 10

    def __post_init__(self) -> None:
        for name in ("documents", "holes"):
            _at_least(f"evaluation.{name}", getattr(self, name), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptConfig:
    """One run.

    Attributes:
        rank: of the adapter; the size of its file grows with it.
        seed: a step's samples are a function of seed and step.
        samples: what a step reads.
        optimizer: how it learns from that.
        schedule: of the step size; its cooldown ends with each call.
        evaluation: held-out holes.
        report_s: seconds between two points of the curve.
        save_s: seconds between two saves.
        evaluate_s: seconds between two evaluations.
        num_workers: threads that draw samples ahead; 0 draws between steps.
    """

    rank: int = 32
    seed: int = 0
    samples: SampleConfig = field(default_factory=SampleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: Schedule = field(default_factory=lambda: Schedule(warmup_steps=30, cooldown_share=0.12, floor=0.03))
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    report_s: float = 60.0
    save_s: float = 300.0
    evaluate_s: float = 1_200.0
    num_workers: int = 0

    def __post_init__(self) -> None:
        _at_least("rank", self.rank, 1)
        _at_least("num_workers", self.num_workers, 0)
        for name in ("report_s", "save_s", "evaluate_s"):
            if not getattr(self, name) > 0:
                raise TrainingError(f"{name}={getattr(self, name)} must be more than 0")

    def identity(self, base: Mapping[str, str], *, corpus_sha256: str) -> dict[str, Any]:
        """Returns what a state belongs to, in tables that `training.checkpoint` compares: all but times and rate.

        Args:
            base: `AdaptedBase.identity`.
            corpus_sha256: of the files.
        """
        return {
            "run": {"seed": self.seed},
            "model": {**base, "rank": self.rank},
            "data": asdict(self.samples) | {"corpus_sha256": corpus_sha256},
            "optimizer": {name: value for name, value in asdict(self.optimizer).items() if name != "rate"},
        }


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise TrainingError(f"{name}={value} must be at least {least}")
