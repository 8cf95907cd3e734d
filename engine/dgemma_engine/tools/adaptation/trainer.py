"""The training loop of an adapter: base, sources and configuration in; a state, the adapter's file and a curve out.

Wires samples, passes, optimiser, schedule and files; does no maths of its own. A step is a function of the state and
its number: an interrupted and resumed run makes the same steps as one that was not, but for the cooldown of each call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dgemma_engine.errors import Diverged, TrainingError
from dgemma_engine.tools.adaptation.adapted_base import AdaptedBase
from dgemma_engine.tools.adaptation.adapter_writer import write_adapter
from dgemma_engine.tools.adaptation.batches import SampleBatch
from dgemma_engine.tools.adaptation.config import AdaptConfig
from dgemma_engine.tools.adaptation.evaluation import held_out_losses, held_out_samples
from dgemma_engine.tools.adaptation.factors import collect_gradients, copied, move_average
from dgemma_engine.tools.adaptation.parallel_pass import block_states, encode_texts, target_losses
from dgemma_engine.tools.adaptation.progress import AdaptProgress
from dgemma_engine.tools.adaptation.sample_stream import SampleStream
from dgemma_engine.tools.adaptation.samples import Sample, SampleDrawer
from dgemma_engine.tools.adaptation.sources import AdaptSources
from dgemma_engine.tools.evaluation.provenance import provenance
from dgemma_engine.tools.training.checkpoint import load_state, save_state

# Passes over a batch's blocks, the shorter ones first: one pads all to the longest, many leave a device little to do.
_PARTS = 3


@dataclass(slots=True)
class _Window:
    """Sums since the last point of the curve."""

    elapsed_s: float
    loss: float = 0.0
    norm: float = 0.0
    clipped: int = 0
    steps: int = 0


class AdaptTrainer:
    """One run.

    Args:
        config: of adapter, samples and optimiser.
        base: the models and the factors.
        sources: what to learn from.
        out: folder for state, adapter and curve; made if missing.
        device: where to train.
        clock: seconds that never go backwards.
        report: called with a line for a person.

    Attributes:
        base: as given.
        progress: where the run stands.

    Raises:
        TrainingError: the files are too short, or `out` cannot be written.
    """

    def __init__(
        self,
        config: AdaptConfig,
        *,
        base: AdaptedBase,
        sources: AdaptSources,
        out: Path,
        device: torch.device,
        clock: Callable[[], float],
        report: Callable[[str], None],
    ) -> None:
        self._config, self._out, self._device, self._clock, self._report = config, out, device, clock, report
        self.base = base
        tokenizer, tokens, shape = self.base.tokenizer, self.base.tokens, config.samples
        self._stream = SampleStream(SampleDrawer(sources.train, tokenizer, tokens, shape), config)
        held_out = SampleDrawer(sources.held_out, tokenizer, tokens, shape)
        self._held_out = held_out_samples(held_out, config.evaluation)
        self._identity = config.identity(base.identity, corpus_sha256=sources.sha256)
        self._optimizer = torch.optim.AdamW(
            [tensor.requires_grad_() for tensor in self.base.factors.values()],
            lr=config.optimizer.rate,
            betas=(0.9, config.optimizer.beta2),
            weight_decay=0.0,
        )
        self._average = copied(self.base.factors)
        self.progress = AdaptProgress()
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"{out}: cannot be made ({error}); choose another --out") from error

    @torch.no_grad()
    def resume(self) -> None:
        """Goes on from `out/state.pt`.

        Raises:
            CannotResume: there is none, it is damaged, or it belongs to another base, corpus or configuration.
        """
        state = load_state(self._out, self._identity)
        for name, tensor in self.base.factors.items():
            tensor.copy_(state["factors"][name])
            self._average[name].copy_(state["average"][name])
            self.base.merged_factors[name].copy_(state["merged"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self.progress = AdaptProgress.from_dict(state["progress"])
        self._report(f"resumed at step {self.progress.step}, after {self.progress.holes} holes")

    def run(self, minutes: float, *, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Trains for `minutes`; then evaluates and saves.

        Args:
            minutes: of this call; the step size falls over the last part of them.
            interrupted: asked after every step; once true, the state is saved and the call ends, to be resumed.

        Raises:
            Diverged: the loss is not a number. The last good files are kept.
            TrainingError: a file cannot be written. The last good ones are kept.
        """
        progress, config = self.progress, self._config
        started, spent_s = self._clock(), progress.elapsed_s
        self._require_base_losses()
        self.base.merge(self.base.merged_factors)
        next_save_s, next_evaluation_s = config.save_s, config.evaluate_s
        window = _Window(elapsed_s=0.0)
        steps = self._stream.since(progress.step)
        while (elapsed_s := self._clock() - started) < minutes * 60:
            scale = config.schedule.scale(step=progress.step, elapsed_s=elapsed_s, budget_s=minutes * 60)
            self._step(next(steps), config.optimizer.rate * scale, window)
            elapsed_s = self._clock() - started
            progress.elapsed_s = spent_s + elapsed_s
            if elapsed_s - window.elapsed_s >= config.report_s:
                window = self._add_point(window, elapsed_s, config.optimizer.rate * scale)
            if elapsed_s >= next_evaluation_s:
                self._evaluate()
                next_evaluation_s += config.evaluate_s
            if interrupted():
                self._report(f"interrupted at step {progress.step}; go on with --resume")
                break
            if elapsed_s >= next_save_s:
                self.save()
                next_save_s += config.save_s
        else:
            self._evaluate()
        steps.close()
        self.save()

    def save(self) -> None:
        """Writes the state, the adapter of the averaged factors and the curve.

        Raises:
            TrainingError: the disk is full; the last good files are kept.
        """
        progress = self.progress
        save_state(
            {
                "config": self._identity,
                "factors": copied(self.base.factors),
                "average": self._average,
                "merged": self.base.merged_factors,
                "optimizer": self._optimizer.state_dict(),
                "progress": progress.to_dict(),
            },
            self._out,
        )
        made = {"step": progress.step, "holes": progress.holes, "tokens": progress.tokens, "minutes": progress.minutes}
        write_adapter(
            self._average,
            self._out,
            stage="causal",
            base_sha256=self.base.sha256,
            tokens=self.base.tokens,
            provenance=provenance(str(self._device)) | made | {"base": self.base.path.name, "training": self._identity},
        )
        progress.save_curve(self._out)

    def _step(self, samples: list[Sample], rate: float, window: _Window) -> None:
        progress, optimizer, base = self.progress, self._config.optimizer, self.base
        if progress.step % optimizer.merge_steps == 0:
            base.merged_factors = copied(base.factors)
            base.merge(base.merged_factors)
        batch = self._batch(*samples)
        terms, texts, total_weight = base.terms(), encode_texts(base.merged, batch), batch.weight_RN.sum()
        middles = list[Tensor]()
        num_targets = 0
        for part in batch.parts(_PARTS):
            states_RND = block_states(base.plain, part, texts, terms=terms)
            losses, weights = target_losses(base.plain, states_RND, part), part.weight_RN[part.weight_RN > 0]
            ((losses * weights).sum() / total_weight).backward()
            middles.append(losses.detach()[weights == 1])
            num_targets += len(losses)
        collect_gradients(terms, base.factors)
        norm = torch.nn.utils.clip_grad_norm_(base.factors.values(), optimizer.max_norm)
        middle = torch.cat(middles).mean()
        # One transfer a step: a device is never waited for twice.
        loss, norm = torch.stack((middle, norm)).tolist()
        self._require_finite(loss, "loss")
        self._require_finite(norm, "gradient norm")
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        progress.step += 1
        move_average(self._average, base.factors, step=progress.step, decay=optimizer.average_decay)
        progress.holes += batch.num_holes
        progress.tokens += num_targets
        window.loss += loss
        window.norm += norm
        window.clipped += norm > optimizer.max_norm
        window.steps += 1

    def _require_finite(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise Diverged(
                f"the {what} is {value} at step {self.progress.step}; stopped, the last good adapter is in "
                f"{self._out}: lower --rate, then use --resume"
            )

    def _require_base_losses(self) -> None:
        """Measures the untrained base on the held-out holes, once in a run."""
        base = self.progress.base
        if not base:
            alone = [sample.without_suffix() for sample in self._held_out]
            base["alone"] = held_out_losses(self.base.plain, alone, self._batch)
            base["beside"] = held_out_losses(self.base.plain, self._held_out, self._batch)
            self.progress.add_point(base=dict(base))
            self._report(
                f"untrained: middle {base['beside']['middle']} nats a token, {base['alone']['middle']} without suffix"
            )

    def _evaluate(self) -> None:
        self.base.merge(self._average)
        losses = held_out_losses(self.base.merged, self._held_out, self._batch)
        self.base.merge(self.base.merged_factors)
        self.progress.add_point(held_out=losses)
        untrained = self.progress.base["beside"]
        shown = ", ".join(f"{name} {loss} (untrained {untrained[name]})" for name, loss in losses.items())
        self._report(f"held out after {self.progress.holes} holes, nats a token: {shown}")

    def _add_point(self, window: _Window, elapsed_s: float, rate: float) -> _Window:
        point = self.progress.add_point(
            loss=round(window.loss / window.steps, 4),
            norm=round(window.norm / window.steps, 3),
            clipped=round(window.clipped / window.steps, 3),
            rate=rate,
            step_s=round((elapsed_s - window.elapsed_s) / window.steps, 3),
        )
        self._report(
            f"step {point['step']} {point['minutes']} min {point['holes']} holes  loss {point['loss']}  "
            f"norm {point['norm']}, {100 * point['clipped']:.0f} % cut  rate {rate:.2e}  {point['step_s']} s a step"
        )
        return _Window(elapsed_s=elapsed_s)

    def _batch(self, *samples: Sample) -> SampleBatch:
        return SampleBatch.of(samples, reserved=self._config.samples.suffix_tokens, device=self._device)
