"""Muon for matrices, AdamW for the rest.

Muon orthogonalises the momentum of each matrix by Newton-Schulz steps (Keller Jordan,
https://kellerjordan.github.io/posts/muon); stacked expert matrices are orthogonalised as a batch. Knows parameters and
gradients; knows nothing of losses or schedules. Shape legend: ... any leading dimensions, M rows, N columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dgemma_engine.errors import TrainingError

# Quintic coefficients that raise small singular values fastest; the result lies between about 0.7 and 1.2.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS = 5


def orthogonalise(matrix_MN: Tensor) -> Tensor:
    """Returns the nearest semi-orthogonal matrix, about: all singular values pushed to 1, in bfloat16.

    Args:
        matrix_MN: a matrix, or a stack of them: [..., M, N].
    """
    x = matrix_MN.to(torch.bfloat16)
    is_tall = x.shape[-2] > x.shape[-1]
    if is_tall:
        x = x.mT
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True).to(x.dtype) + 1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * (gram @ gram)) @ x
    return x.mT if is_tall else x


@dataclass(frozen=True, slots=True, kw_only=True)
class MuonConfig:
    """Step sizes.

    Attributes:
        matrix_lr: Muon's; the length of a step relative to an orthogonal matrix.
        vector_lr: AdamW's for norms, scales and the router.
        embedding_lr: AdamW's for the embedding.
        momentum: Muon's; near 0 follows each batch, near 1 averages many.
        beta1: AdamW's average of gradients.
        beta2: AdamW's average of squared gradients.
        weight_decay: share of a matrix or embedding that a step of size 1 removes; 0 lets them grow.
        clip_norm: gradients are scaled down to this norm; large never clips.
    """

    matrix_lr: float = 0.02
    vector_lr: float = 0.003
    embedding_lr: float = 0.003
    momentum: float = 0.95
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.05
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("matrix_lr", "vector_lr", "embedding_lr", "clip_norm"):
            if getattr(self, name) <= 0:
                raise TrainingError(f"optimizer.{name}={getattr(self, name)} must be more than 0")
        for name in ("momentum", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise TrainingError(f"optimizer.{name}={getattr(self, name)} must be at least 0 and less than 1")
        if self.weight_decay < 0:
            raise TrainingError(f"optimizer.weight_decay={self.weight_decay} must not be negative")


@dataclass(slots=True)
class _Slot:
    """One parameter with its averages."""

    name: str
    parameter: nn.Parameter
    state: dict[str, Tensor] = field(default_factory=dict[str, Tensor])


class MuonAdamW:
    """Optimiser over the named parameters of a model.

    Args:
        model: its parameters, float32, are changed in place.
        config: step sizes.
    """

    def __init__(self, model: nn.Module, config: MuonConfig) -> None:
        self._config = config
        self._slots: list[_Slot] = []
        self._steps = 0
        for name, parameter in model.named_parameters():
            slot = _Slot(name, parameter, {"average": torch.zeros_like(parameter)})
            if not is_matrix(name, parameter):
                slot.state["square"] = torch.zeros_like(parameter)
            self._slots.append(slot)

    @torch.no_grad()
    def gradient_norm(self) -> Tensor:
        """Returns the norm of all gradients, a scalar on their device."""
        grads = [slot.parameter.grad for slot in self._slots if slot.parameter.grad is not None]
        return torch.stack([grad.norm() for grad in grads]).norm()

    @torch.no_grad()
    def step(self, lr_scale: float, gradient_norm: float) -> None:
        """Applies the gradients and clears them.

        Args:
            lr_scale: factor on all step sizes, from the schedule.
            gradient_norm: what `gradient_norm` returned, finite; above `clip_norm` the gradients are scaled down to it.
        """
        config = self._config
        clip = min(1.0, config.clip_norm / (gradient_norm + 1e-6))
        self._steps += 1
        for slot in self._slots:
            if (gradient := slot.parameter.grad) is None:
                continue
            if is_matrix(slot.name, slot.parameter):
                self._step_matrix(slot, gradient * clip, config.matrix_lr * lr_scale)
            else:
                is_embedding = slot.name.startswith("embed_tokens")
                lr = (config.embedding_lr if is_embedding else config.vector_lr) * lr_scale
                self._step_adam(slot, gradient * clip, lr, config.weight_decay if is_embedding else 0.0)
            slot.parameter.grad = None

    def _step_matrix(self, slot: _Slot, grad: Tensor, lr: float) -> None:
        average = slot.state["average"]
        average.lerp_(grad, 1 - self._config.momentum)
        update = orthogonalise(grad.lerp(average, self._config.momentum))
        rows, columns = update.shape[-2:]
        slot.parameter.mul_(1 - lr * self._config.weight_decay)
        slot.parameter.add_(update.float(), alpha=-lr * max(1.0, rows / columns) ** 0.5)

    def _step_adam(self, slot: _Slot, grad: Tensor, lr: float, weight_decay: float) -> None:
        beta1, beta2 = self._config.beta1, self._config.beta2
        average, square = slot.state["average"], slot.state["square"]
        average.lerp_(grad, 1 - beta1)
        square.lerp_(grad.square(), 1 - beta2)
        scale = (square / (1 - beta2**self._steps)).sqrt_().add_(1e-8)
        slot.parameter.mul_(1 - lr * weight_decay)
        slot.parameter.addcdiv_(average, scale, value=-lr / (1 - beta1**self._steps))

    def state_dict(self) -> dict[str, Any]:
        """Returns averages and the step count; tensors are shared, not copied."""
        return {"steps": self._steps, "slots": {slot.name: slot.state for slot in self._slots}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        self._steps = state["steps"]
        for slot in self._slots:
            for key, value in state["slots"][slot.name].items():
                slot.state[key].copy_(value)


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon steps a parameter: matrices that map hidden states, but neither embedding nor router."""
    return parameter.ndim >= 2 and not name.startswith("embed_tokens") and ".router." not in name
