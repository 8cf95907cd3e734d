from __future__ import annotations

import pytest
import torch
from dgemma_engine.errors import TrainingError
from dgemma_engine.tools.training.optimization.muon import MuonAdamW, MuonConfig, is_matrix, orthogonalise
from torch import nn

pytestmark = pytest.mark.numerical


@pytest.mark.parametrize("shape", [(24, 24), (12, 40), (40, 12), (3, 12, 40), (3, 40, 12)])
def test_orthogonalise_pushes_all_singular_values_towards_one(shape: tuple[int, ...]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 5
    values = torch.linalg.svdvals(orthogonalise(matrix).float())
    assert values.min() > 0.4
    assert values.max() < 1.3


def test_orthogonalise_treats_a_stack_matrix_by_matrix() -> None:
    stack = torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(0))
    stack[1] *= 1_000
    for index in range(3):
        torch.testing.assert_close(orthogonalise(stack)[index], orthogonalise(stack[index]), atol=0.02, rtol=0.02)


def test_orthogonalise_of_zeros_is_finite() -> None:
    assert orthogonalise(torch.zeros(4, 4)).isfinite().all()


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(10, 8)
        self.proj = nn.Linear(8, 10, bias=True)

    def loss(self) -> torch.Tensor:
        return nn.functional.cross_entropy(self.proj(self.embed_tokens.weight), torch.arange(10).flip(0))


def test_muon_updates_hidden_matrices_only() -> None:
    toy = Toy()
    assert {name for name, parameter in toy.named_parameters() if is_matrix(name, parameter)} == {"proj.weight"}
    assert not is_matrix("layers.0.router.proj.weight", torch.zeros(4, 8))
    assert is_matrix("layers.0.experts.gate_up_proj", torch.zeros(4, 8, 8))


def test_steps_lower_the_loss_and_a_restored_optimiser_continues_identically() -> None:
    torch.manual_seed(0)
    toy = Toy()
    optimizer = MuonAdamW(toy, MuonConfig())
    first = toy.loss().item()

    def steps(model: Toy, used: MuonAdamW, count: int) -> float:
        for _ in range(count):
            model.loss().backward()
            used.step(1.0, used.gradient_norm().item())
        return model.loss().item()

    steps(toy, optimizer, 20)
    other = Toy()
    other.load_state_dict(toy.state_dict())
    restored = MuonAdamW(other, MuonConfig())
    restored.load_state_dict(optimizer.state_dict())
    assert steps(toy, optimizer, 20) == steps(other, restored, 20)
    assert toy.loss().item() < 0.5 * first


def test_step_clips_to_the_norm_it_is_given() -> None:
    torch.manual_seed(0)
    toy = Toy()
    before = {name: parameter.detach().clone() for name, parameter in toy.named_parameters()}
    (toy.loss() * 1e6).backward()
    optimizer = MuonAdamW(toy, MuonConfig())
    norm = optimizer.gradient_norm().item()
    assert norm > 1e3
    optimizer.step(1.0, norm)
    assert all((parameter - before[name]).abs().max() < 0.1 for name, parameter in toy.named_parameters())


def test_gradient_norm_is_over_all_gradients() -> None:
    toy = Toy()
    toy.loss().backward()
    gradients = torch.cat([parameter.grad.flatten() for parameter in toy.parameters() if parameter.grad is not None])
    torch.testing.assert_close(MuonAdamW(toy, MuonConfig()).gradient_norm(), gradients.norm())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"matrix_lr": 0.0}, "optimizer.matrix_lr=0.0 must be more than 0"),
        ({"beta2": 1.0}, "optimizer.beta2=1.0 must be at least 0 and less than 1"),
        ({"weight_decay": -1.0}, "optimizer.weight_decay=-1.0 must not be negative"),
    ],
)
def test_step_sizes_out_of_range_are_named(values: dict[str, float], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        MuonConfig(**values)
