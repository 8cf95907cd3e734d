from __future__ import annotations

from pathlib import Path
from typing import Any

import dgemma_engine.tools.training
import pytest
import torch
from dgemma_engine.errors import TrainingError, WrongUsage
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.tools.training.optimization.schedule import Schedule
from dgemma_engine.tools.training.train_config import TrainConfig, differing_keys

CONFIGS = Path(dgemma_engine.tools.training.__path__[0]) / "configs"


def changed(settings: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    table, _, name = key.partition(".")
    return settings | {table: settings.get(table, {}) | {name: value}}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.hiden_size", 3, r"model.hiden_size is unknown; known are vocab_size, hidden_size"),
        ("model.hidden_size", "big", r"model.hidden_size='big' must be of type int"),
        ("model.hidden_size", True, r"model.hidden_size=True must be of type int"),
        ("model.num_attention_heads", 0, r"model: .*num_attention_heads=0 must be at least 1"),
        ("model.top_k_experts", 9, r"model: .*top_k_experts"),
        ("model.layer_types", ["round"], r"model: 'round' is not a valid LayerKind"),
        ("model.layer_types", "sliding_attention", r"model.layer_types must be a list"),
        ("model.canvas_length", 8, r"model.canvas_length=8 must be at least 24"),
        ("format.slot_sizes", [8, 4], r"format: .*must be ascending"),
        ("format.prefix_tokens", 0, r"format: .*prefix_tokens=0 must be a whole number from 1"),
        ("data.batch_tokens", 0, r"data.batch_tokens=0 must be at least 1"),
        ("data.num_workers", -1, r"data.num_workers=-1 must not be negative"),
        ("middles.line", 0.9, r"middles: line, block, syntax and span must be shares that sum to 1"),
        ("schedule.warmup_steps", -1, r"schedule.warmup_steps=-1 must not be negative"),
        ("schedule.cooldown_share", 2.0, r"schedule.cooldown_share=2.0 must be between 0 and 1"),
        ("schedule.floor", 2.0, r"schedule.floor=2.0 must be between 0 and 1"),
        ("loss.causal_weight", -1.0, r"loss.causal_weight and loss.balance_weight must not be negative"),
        ("loss.self_conditioned_share", 2.0, r"loss.self_conditioned_share=2.0 must be between 0 and 1"),
        ("run.minutes", 0.0, r"run.minutes=0.0 must be more than 0"),
        ("run.log_steps", 0, r"run.log_steps=0 must be at least 1"),
    ],
)
def test_a_wrong_value_names_its_key(settings: dict[str, Any], key: str, value: Any, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        TrainConfig.from_dict(changed(settings, key, value))


def test_a_missing_key_and_an_unknown_table_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match=r"model.vocab_size is missing"):
        TrainConfig.from_dict(settings | {"model": {}})
    with pytest.raises(TrainingError, match=r"unknown tables: modle; known are model"):
        TrainConfig.from_dict(settings | {"modle": {}})
    with pytest.raises(TrainingError, match=r"model must be a table"):
        TrainConfig.from_dict(settings | {"model": 3})


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("model = [")
    with pytest.raises(TrainingError, match=r"bad.toml: cannot be read"):
        TrainConfig.load(path)
    with pytest.raises(WrongUsage, match=r"none.toml: no such file; name a training configuration"):
        TrainConfig.load(tmp_path / "none.toml")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_configurations_survive_a_round_trip_and_are_small_enough(path: Path) -> None:
    config = TrainConfig.load(path)
    assert TrainConfig.from_dict(config.to_dict()) == config
    with torch.device("meta"):
        model = DiffusionGemma(config.model.model_config(), Ops.reference())
    total = sum(parameter.numel() for parameter in model.parameters())
    experts = sum(parameter.numel() for name, parameter in model.named_parameters() if ".experts." in name)
    active = total - experts * (1 - config.model.top_k_experts / config.model.num_experts)
    # The limits of the wheel's size and of the latency target.
    assert total < 100e6 and active < 30e6


def test_differing_keys_compares_only_what_determines_a_checkpoint(settings: dict[str, Any]) -> None:
    mine = TrainConfig.from_dict(settings).to_dict()
    other = TrainConfig.from_dict(changed(settings, "optimizer.momentum", 0.5)).to_dict()
    assert differing_keys(mine, other) == ["optimizer.momentum"]
    assert differing_keys(mine, TrainConfig.from_dict(changed(settings, "run.minutes", 5.0)).to_dict()) == []
    assert differing_keys(mine, TrainConfig.from_dict(changed(settings, "run.seed", 5)).to_dict()) == ["run.seed"]


def test_schedule_warms_up_stays_and_cools_down_with_the_clock() -> None:
    schedule = Schedule(warmup_steps=9, cooldown_share=0.25, floor=0.0)

    def scale(step: int, elapsed_s: float) -> float:
        return schedule.scale(step=step, elapsed_s=elapsed_s, budget_s=100.0)

    assert scale(0, 0.0) == pytest.approx(0.1)
    assert scale(9, 0.0) == pytest.approx(1.0)
    assert scale(1_000, 74.0) == pytest.approx(1.0)
    assert scale(1_000, 87.5) == pytest.approx(0.5)
    assert scale(1_000, 100.0) == pytest.approx(0.0)
    assert scale(1_000, 120.0) == pytest.approx(0.0)
    assert Schedule(cooldown_share=0.0).scale(step=99, elapsed_s=99.0, budget_s=100.0) == 1.0
