"""`generation_config.json` good and bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.diffusion.sampler import EntropyBound, StableAndConfident, TemperatureSchedule
from dgemma_engine.diffusion.sampler_config import load_sampler
from dgemma_engine.errors import CheckpointError


def test_missing_values_are_the_defaults_of_transformers(tmp_path: Path) -> None:
    values = {"max_denoising_steps": 7, "t_min": 0.1, "sampler_config": {"other": 1}, "t_max": None}
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    sampler = load_sampler(tmp_path, 10)
    assert (sampler.num_steps, sampler.schedule) == (7, TemperatureSchedule(t_min=0.1, t_max=0.8))
    assert (sampler.acceptance, sampler.stop) == (
        EntropyBound(bound=0.1),
        StableAndConfident(num_earlier=1, confidence=0.005),
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_denoising_steps": 0}, "max_denoising_steps=0 must be at least 1"),
        ({"max_denoising_steps": 1.5}, "max_denoising_steps must be a whole number, not 1.5"),
        ({"max_denoising_steps": 10**9}, "max_denoising_steps=1000000000 must be at most"),
        ({"t_min": "warm"}, "t_min must be a number, not 'warm'"),
        ({"t_max": float("nan")}, "t_max=nan must be from 0"),
        ({"t_min": 0.9}, "t_min=0.9 must be less than t_max=0.8"),
        ({"sampler_config": 3}, "sampler_config must be an object, not 3"),
        ({"sampler_config": {"entropy_bound": -1}}, "entropy_bound=-1 must be from"),
        ({"stability_threshold": -1}, "stability_threshold=-1 must be at least 0"),
        ({"confidence_threshold": 0}, "confidence_threshold=0 must be from"),
        ([], "its content must be an object"),
    ],
)
def test_bad_value_is_named(tmp_path: Path, values: Any, message: str) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError) as caught:
        load_sampler(tmp_path, 10)
    assert str(caught.value).startswith(f"{tmp_path}/generation_config.json: {message}")
    assert str(caught.value).endswith("download it again")


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 10**5])
def test_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "generation_config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"generation_config\.json: cannot be read"):
        load_sampler(tmp_path, 10)
