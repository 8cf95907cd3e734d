"""The smallest tuning on a task that lowers the loss."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dgemma_engine.repository_adapters.training_folder import TrainingFolder
from dgemma_engine.tools.adaptation.config import OptimizerConfig
from dgemma_engine.tools.adaptation.task.canvas_trainer import CanvasConfig
from dgemma_engine.tools.training.optimization.schedule import Schedule
from dgemma_engine.tools.tuning.task.task_tuner import TaskTuner
from dgemma_engine.tools.tuning.tuner import Report
from dgemma_engine.tools.tuning.work_clock import WorkClock

from tests.engine.tools.adaptation.task.conftest import full_precision, marked_base  # noqa: F401, fixtures
from tests.engine.tools.tuning.conftest import NOW, work_clock

MakeTaskTuner = Callable[..., TaskTuner]
CONFIG = CanvasConfig(
    rank=4,
    rows=4,
    optimizer=OptimizerConfig(rate=3e-2, average_decay=0.5),
    schedule=Schedule(warmup_steps=2, cooldown_share=0.2),
    save_s=10.0,
)


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """Rows whose free text is always the same letter."""
    draw, path = random.Random(0), tmp_path / "task.jsonl"
    rows = [
        {"parts": [{"given": "".join(draw.choices("abcd", k=4))}, {"free": "qq"}, {"given": "."}]} for _ in range(150)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture
def make_task_tuner(marked_base: Path, task: Path, tmp_path: Path) -> MakeTaskTuner:  # noqa: F811
    """Returns a function that makes the tuning; keywords override its settings."""

    def make(
        *,
        task: Path = task,
        base: Path = marked_base,
        config: CanvasConfig = CONFIG,
        minutes: float = 6.0,
        clock: WorkClock | None = None,
        report: Report = lambda _percent, _line: None,
    ) -> TaskTuner:
        return TaskTuner(
            task,
            base,
            tmp_path / "adapter",
            config,
            minutes=minutes,
            device=torch.device("cpu"),
            clock=work_clock() if clock is None else clock,
            now=lambda: NOW,
            report=report,
            training=TrainingFolder(path=tmp_path / "adapter" / "training"),
        )

    return make
