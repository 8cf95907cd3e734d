"""The training loop: data and configuration in, checkpoints and curves out.

Wires data, losses, optimiser, schedule and checkpoints; does no maths of its own. A run is a function of its
configuration, data and clock: an interrupted and resumed run makes the same steps as one that was not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from dgemma_engine.errors import TrainingError
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.tools.training.checkpoint import BEST, LATEST, export, load_state, save_state, unwritable
from dgemma_engine.tools.training.compiled import compile_layers
from dgemma_engine.tools.training.curves import CurvePoint, Curves, Evaluation
from dgemma_engine.tools.training.data.batches import Batch, Position
from dgemma_engine.tools.training.data.corruption import noise_levels
from dgemma_engine.tools.training.data.training_data import TrainingData
from dgemma_engine.tools.training.evaluation import held_out_losses
from dgemma_engine.tools.training.initial import initialise
from dgemma_engine.tools.training.optimization.losses import TokenBatch, infilling_losses
from dgemma_engine.tools.training.optimization.muon import MuonAdamW
from dgemma_engine.tools.training.optimization.routing_balance import RoutingBalance
from dgemma_engine.tools.training.optimization.vocabulary import Vocabulary
from dgemma_engine.tools.training.progress import TrainingProgress
from dgemma_engine.tools.training.throughput import matrix_rate, useful_flops
from dgemma_engine.tools.training.train_config import TrainConfig


@dataclass(slots=True)
class _Window:
    """Sums since the last point of the curve."""

    slot: float = 0.0
    causal: float = 0.0
    balance: float = 0.0
    grad_norm: float = 0.0
    tokens: int = 0
    flops: float = 0.0
    steps: int = 0
    elapsed_s: float = 0.0


class Trainer:
    """One run.

    Args:
        config: of model, data and optimisation.
        data: what to learn from.
        out: folder for checkpoints and curves; made if missing.
        device: where to train.
        clock: seconds that never go backwards.
        report: called with a line for a person.

    Raises:
        TrainingError: the data cannot be used or `out` cannot be written.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        data: TrainingData,
        out: Path,
        device: torch.device,
        clock: Callable[[], float],
        report: Callable[[str], None],
    ) -> None:
        self._config, self._data, self._out = config, data, out
        self._device, self._clock, self._report = device, clock, report
        self._form = config.format.infill_format()
        self._evaluation_batches = self._held_out()
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"{out}: cannot be made ({error}); choose another --out") from error
        self._generator = torch.Generator(device).manual_seed(config.run.seed)
        self._balance = RoutingBalance(device)
        self.model = DiffusionGemma(config.model.model_config(), self._balance.ops()).to(device)
        initialise(self.model, self._generator)
        self._optimizer = MuonAdamW(self.model, config.optimizer)
        self._vocabulary = Vocabulary.eager()
        if config.run.execution == "compiled":
            compile_layers(self.model)
            self._vocabulary = Vocabulary.compiled()
        self._progress = TrainingProgress()
        self._matrix_rate = math.inf

    @property
    def curves(self) -> Curves:
        """What was measured so far."""
        return self._progress.curves

    @property
    def tokens(self) -> int:
        """Prompt, slot and canvas tokens seen so far."""
        return self._progress.tokens

    def resume(self) -> None:
        """Goes on from `out/state.pt`.

        Raises:
            TrainingError: there is none, it is damaged, or it belongs to another configuration.
        """
        state = load_state(self._out, self._identity())
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])
        self._progress = TrainingProgress.from_dict(state["progress"])
        self._report(f"resumed at step {self._progress.step}")

    def run(self, minutes: float, *, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Trains until `minutes` have been spent in all, resumed time included; then evaluates and saves.

        Args:
            minutes: the budget; the schedule is spread over it.
            interrupted: asked after every step; once true, the state is saved and the run ends, to be resumed.

        Raises:
            TrainingError: the loss is not a number, or a checkpoint cannot be written. The last good one is kept.
        """
        progress, config = self._progress, self._config
        budget_s = minutes * 60
        self._matrix_rate = matrix_rate(self._device)
        self._report(f"one large matrix product runs at {self._matrix_rate / 1e12:.3g} TFLOP/s on {self._device}")
        started = self._clock() - progress.elapsed_s
        next_save_s = progress.elapsed_s + config.run.save_minutes * 60
        next_evaluation_s = progress.elapsed_s + config.run.evaluate_minutes * 60
        window = _Window(elapsed_s=progress.elapsed_s)
        batches = self._data.stream("train", progress.position, num_workers=config.data.num_workers)
        for batch in batches:
            if progress.elapsed_s >= budget_s:
                break
            lr_scale = config.schedule.scale(step=progress.step, elapsed_s=progress.elapsed_s, budget_s=budget_s)
            self._step(batch, lr_scale, window)
            progress.position = batches.position
            progress.elapsed_s = self._clock() - started
            if progress.step % config.run.log_steps == 0:
                window = self._log(window, lr_scale)
            if progress.elapsed_s >= next_evaluation_s:
                self._evaluate()
                next_evaluation_s += config.run.evaluate_minutes * 60
            if interrupted():
                self._report(f"interrupted at step {progress.step}; go on with --resume")
                break
            if progress.elapsed_s >= next_save_s:
                self.save()
                next_save_s += config.run.save_minutes * 60
        batches.close()
        if progress.elapsed_s >= budget_s:
            self._evaluate()
        self.save()

    def save(self) -> None:
        """Writes state, the model folder `latest` and the curves.

        Raises:
            TrainingError: the disk is full; the last good checkpoint is kept.
        """
        progress = self._progress
        save_state(
            {
                "config": self._identity(),
                "model": self.model.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "generator": self._generator.get_state(),
                "progress": progress.to_dict(),
            },
            self._out,
        )
        self._export(LATEST)
        try:
            progress.curves.save(self._out)
        except OSError as error:
            raise unwritable(self._out / "curves.json", error) from error

    def _step(self, batch: Batch, lr_scale: float, window: _Window) -> None:
        progress, loss_table = self._progress, self._config.loss
        num_canvases = self._config.data.canvases_per_hole
        num_judgements = (
            2 if Random(f"{self._config.run.seed} {progress.step}").random() < loss_table.self_conditioned_share else 1
        )
        with torch.autocast(self._device.type, dtype=torch.bfloat16):
            losses = infilling_losses(
                self.model,
                TokenBatch.of(batch, self._device),
                levels_BR=noise_levels(batch.num_rows, num_canvases, self._generator),
                num_judgements=num_judgements,
                generator=self._generator,
                vocabulary=self._vocabulary,
            )
            balance = self._balance.take()
        total = losses.slot + loss_table.causal_weight * losses.causal + loss_table.balance_weight * balance
        total.backward()
        # One transfer a step: a device is never waited for twice.
        scalars = torch.stack((total, self._optimizer.gradient_norm(), losses.slot, losses.causal, balance))
        loss, grad_norm, slot, causal, balanced = scalars.detach().tolist()
        self._require_finite(loss, "loss")
        self._require_finite(grad_norm, "gradient norm")
        self._optimizer.step(lr_scale, grad_norm)
        window.grad_norm += grad_norm
        window.slot += slot
        window.causal += causal
        window.balance += balanced
        window.steps += 1
        num_tokens = batch.prompt_BP.size + batch.slot_BS.size
        num_tokens += num_canvases * (batch.slot_BS.size + batch.head_BH.size)
        window.tokens += num_tokens
        window.flops += useful_flops(self.model.config, batch, num_canvases=num_canvases, num_judgements=num_judgements)
        progress.step += 1
        progress.tokens += num_tokens
        progress.holes += batch.num_rows

    def _require_finite(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"the {what} is {value} at step {self._progress.step}; stopped, the last good checkpoint is in "
                f"{self._out}: lower the step sizes in [optimizer], then use --resume"
            )

    def _log(self, window: _Window, lr_scale: float) -> _Window:
        progress, steps = self._progress, window.steps
        seconds = max(1e-9, progress.elapsed_s - window.elapsed_s)
        point = CurvePoint(
            step=progress.step,
            minutes=progress.elapsed_s / 60,
            tokens=progress.tokens,
            holes=progress.holes,
            slot=window.slot / steps,
            causal=window.causal / steps,
            balance=window.balance / steps,
            grad_norm=window.grad_norm / steps,
            lr_scale=lr_scale,
            tokens_per_s=window.tokens / seconds,
            tflops=window.flops / seconds / 1e12,
        )
        progress.curves.points.append(point)
        self._report(
            f"step {point.step} {point.minutes:.1f} min {point.tokens / 1e6:.2f} Mtok  slot {point.slot:.3f}  "
            f"causal {point.causal:.3f}  balance {point.balance:.2f}  norm {point.grad_norm:.2f}  "
            f"lr x{lr_scale:.2f}  {point.tokens_per_s:.0f} tok/s  {point.tflops:.3g} TFLOP/s "
            f"({1e14 * point.tflops / self._matrix_rate:.0f} % of the matrix rate)"
        )
        return _Window(elapsed_s=progress.elapsed_s)

    def _evaluate(self) -> None:
        progress = self._progress
        with torch.autocast(self._device.type, dtype=torch.bfloat16):
            means = held_out_losses(
                self.model,
                self._evaluation_batches,
                num_canvases=self._config.data.canvases_per_hole,
                vocabulary=self._vocabulary,
            )
        evaluation = Evaluation(step=progress.step, minutes=progress.elapsed_s / 60, **means)
        progress.curves.evaluations.append(evaluation)
        self._report(
            f"held out at step {evaluation.step}: slot {evaluation.slot:.3f}  "
            f"from noise {evaluation.slot_full_noise:.3f}  causal {evaluation.causal:.3f}"
        )
        if evaluation.slot < progress.best_slot:
            progress.best_slot = evaluation.slot
            self._export(BEST)

    def _export(self, name: str) -> None:
        num_parameters = sum(parameter.numel() for parameter in self.model.parameters())
        card = self._data.card(self.curves, num_parameters=num_parameters, seed=self._config.run.seed)
        export(
            self.model,
            self._form,
            self._data.save_tokenizer,
            self._out / name,
            generation=self._data.generation,
            card=card,
        )

    def _held_out(self) -> list[TokenBatch]:
        batches = self._data.stream("held_out", Position(), num_workers=0)
        chosen = itertools.islice(batches, self._config.run.evaluation_batches)
        return [TokenBatch.of(batch, self._device) for batch in chosen]

    def _identity(self) -> dict[str, Any]:
        values = self._config.to_dict()
        return values | {"data": values["data"] | self._data.identity}
