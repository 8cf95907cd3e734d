"""A checkpoint's `generation_config.json` to a `Sampler`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dgemma_engine.diffusion.sampler import EntropyBound, Sampler, StableAndConfident, TemperatureSchedule, UniformNoise
from dgemma_engine.errors import CheckpointError

_DEFAULTS: dict[str, Any] = {
    "max_denoising_steps": 48,
    "sampler_config": {"entropy_bound": 0.1},
    "t_min": 0.4,
    "t_max": 0.8,
    "stability_threshold": 1,
    "confidence_threshold": 0.005,
}


def load_sampler(folder: Path, vocab_size: int) -> Sampler:
    """Reads `folder/generation_config.json`; what it leaves out is as in `transformers`.

    Args:
        folder: the model's.
        vocab_size: of the model.

    Raises:
        CheckpointError: the file is damaged or a value is out of range; the message names it.
    """
    path = folder / "generation_config.json"
    values = dict(_DEFAULTS)
    try:
        if path.exists():
            given: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            values |= {key: given[key] for key in _DEFAULTS if given.get(key) is not None}
        return Sampler(
            num_steps=int(values["max_denoising_steps"]),
            schedule=TemperatureSchedule(t_min=float(values["t_min"]), t_max=float(values["t_max"])),
            acceptance=EntropyBound(bound=float(values["sampler_config"]["entropy_bound"])),
            noise=UniformNoise(vocab_size=vocab_size),
            stop=StableAndConfident(
                num_earlier=int(values["stability_threshold"]), confidence=float(values["confidence_threshold"])
            ),
        )
    except (OSError, UnicodeDecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: {error}; correct it or restore it from the checkpoint's source") from error
