"""The training loop of a task's canvas adapter: rows and a base in; a state and the adapter's file out.

A step is a function of the state and its number, so that a resumed run makes the same steps as one that was not
interrupted, but for the cooldown of each call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch

from dgemma_engine.errors import Diverged
from dgemma_engine.tools.adaptation.adapter_writer import write_adapter
from dgemma_engine.tools.adaptation.config import OptimizerConfig
from dgemma_engine.tools.adaptation.factors import copied, move_average
from dgemma_engine.tools.adaptation.progress import AdaptProgress
from dgemma_engine.tools.adaptation.task.canvas_base import CanvasBase
from dgemma_engine.tools.adaptation.task.canvas_batch import CanvasBatch
from dgemma_engine.tools.evaluation.provenance import provenance
from dgemma_engine.tools.tasks.task_tokens import TaskTokens
from dgemma_engine.tools.training.checkpoint import load_state, save_state
from dgemma_engine.tools.training.optimization.schedule import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasConfig:
    """One run.

    Attributes:
        rank: of the adapter.
        seed: of factors, rows and noise.
        rows: of a step.
        canvases: noise draws of each row; they share one prompt pass.
        optimizer: how it learns.
        schedule: of the step size; its cooldown ends with each call.
        save_s: seconds between two saves.
    """

    rank: int = 16
    seed: int = 0
    rows: int = 2
    canvases: int = 2
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(rate=1e-3, average_decay=0.97))
    schedule: Schedule = field(default_factory=lambda: Schedule(warmup_steps=10, cooldown_share=0.3, floor=0.03))
    save_s: float = 60.0


class CanvasTrainer:
    """One run.

    Args:
        config: of adapter, samples and optimiser.
        base: the model and the factors.
        rows: to learn from, all known.
        task_sha256: names them.
        out: folder for state and adapter; must exist.
        device: where to train.
        clock: seconds that never go backwards.

    Attributes:
        progress: where the run stands.
    """

    def __init__(
        self,
        config: CanvasConfig,
        *,
        base: CanvasBase,
        rows: Sequence[TaskTokens],
        task_sha256: str,
        out: Path,
        device: torch.device,
        clock: Callable[[], float],
    ) -> None:
        self._config, self._base, self._rows, self._out, self._clock = config, base, rows, out, clock
        self._device = device
        self._identity: dict[str, Any] = {
            "run": {"seed": config.seed},
            "model": {"base_sha256": base.sha256, "rank": config.rank},
            "data": {"task_sha256": task_sha256, "rows": config.rows, "canvases": config.canvases},
            "optimizer": {name: value for name, value in asdict(config.optimizer).items() if name != "rate"},
        }
        self._optimizer = torch.optim.AdamW(
            list(base.factors.values()),
            lr=config.optimizer.rate,
            betas=(0.9, config.optimizer.beta2),
            weight_decay=0.0,
        )
        self._average = copied(base.factors)
        self.progress = AdaptProgress()

    @torch.no_grad()
    def resume(self) -> None:
        """Goes on from `out/state.pt`.

        Raises:
            CannotResume: there is none, it is damaged, or it belongs to another base, task or configuration.
        """
        state = load_state(self._out, self._identity)
        for name, tensor in self._base.factors.items():
            tensor.copy_(state["factors"][name])
            self._average[name].copy_(state["average"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self.progress = AdaptProgress.from_dict(state["progress"])

    def run(self, minutes: float, *, interrupted: Callable[[], bool]) -> None:
        """Trains for `minutes`, then saves.

        Args:
            minutes: of this call; the step size falls over the last part of them.
            interrupted: asked after every step; once true, the state is saved and the call ends, to be resumed.

        Raises:
            Diverged: the loss is not a number. The last good files are kept.
            TrainingError: a file cannot be written. The last good ones are kept.
        """
        progress, config = self.progress, self._config
        started, spent_s, next_save_s = self._clock(), progress.elapsed_s, config.save_s
        while (elapsed_s := self._clock() - started) < minutes * 60:
            scale = config.schedule.scale(step=progress.step, elapsed_s=elapsed_s, budget_s=minutes * 60)
            self._step(config.optimizer.rate * scale)
            progress.elapsed_s = spent_s + self._clock() - started
            if interrupted():
                break
            if elapsed_s >= next_save_s:
                self.save()
                next_save_s += config.save_s
        self.save()

    def save(self) -> None:
        """Writes the state, and the adapter of the averaged factors.

        Raises:
            TrainingError: the disk is full; the last good files are kept.
        """
        progress = self.progress
        save_state(
            {
                "config": self._identity,
                "factors": copied(self._base.factors),
                "average": self._average,
                "optimizer": self._optimizer.state_dict(),
                "progress": progress.to_dict(),
            },
            self._out,
        )
        made = {"step": progress.step, "rows": progress.holes, "tokens": progress.tokens, "minutes": progress.minutes}
        write_adapter(
            self._average,
            self._out,
            stage="canvas",
            base_sha256=self._base.sha256,
            tokens=self._base.tokens,
            provenance=provenance(str(self._device)) | made | {"training": self._identity},
        )
        progress.save_curve(self._out)

    def _step(self, rate: float) -> None:
        progress, config = self.progress, self._config
        seed = f"{config.seed} {progress.step}"
        mask_id = self._base.tokens.mask
        assert mask_id is not None, "a canvas has a mask"
        batch = CanvasBatch.of(
            Random(seed).choices(self._rows, k=config.rows),
            num_canvases=config.canvases,
            mask_id=mask_id,
            sliding_window=self._base.model.config.sliding_window,
            generator=torch.Generator(self._device).manual_seed(Random(f"noise {seed}").getrandbits(62)),
        )
        loss = self._base.backward(batch)
        norm = float(torch.nn.utils.clip_grad_norm_(self._base.factors.values(), config.optimizer.max_norm))
        for value, what in ((loss, "loss"), (norm, "gradient norm")):
            if not math.isfinite(value):
                raise Diverged(f"the {what} is {value} at step {progress.step}; start again with another --seed")
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        progress.step += 1
        move_average(self._average, self._base.factors, step=progress.step, decay=config.optimizer.average_decay)
        progress.holes += config.rows
        progress.tokens += int((batch.weight_XL > 0).sum())
        progress.add_point(loss=round(loss, 4), norm=round(norm, 3), rate=rate)
