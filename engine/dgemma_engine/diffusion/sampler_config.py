"""The sampler values of a checkpoint, as in a `generation_config.json` -> a `Sampler`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dgemma_engine.config_values import MOST_POSITIONS, object_of, real_number, whole_number
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
# More than any checkpoint asks for; an entropy of that many nats stops nothing.
_MOST_TEMPERATURE, _MOST_NATS = 1e3, 1e6
_LEAST = sys.float_info.min


def load_sampler(folder: Path, vocab_size: int) -> Sampler:
    """Reads `folder/generation_config.json`; what it leaves out is as in `transformers`.

    Args:
        folder: the model's.
        vocab_size: of the model.

    Raises:
        CheckpointError: the file is damaged or a value is out of range; the message names it.
    """
    path = folder / "generation_config.json"
    if not path.exists():
        return sampler_of(path, {}, vocab_size)
    try:
        given: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); download it again") from error
    return sampler_of(path, object_of(path, "its content", given), vocab_size)


def sampler_of(path: Path, given: Mapping[str, Any], vocab_size: int) -> Sampler:
    """Returns the sampler that a checkpoint's values describe; what they leave out is as in `transformers`.

    Args:
        path: of the file that holds them, for messages.
        given: by the names of a `generation_config.json`.
        vocab_size: of the model.

    Raises:
        CheckpointError: a value is out of range; the message names it.
    """
    values = _DEFAULTS | {key: given[key] for key in _DEFAULTS if given.get(key) is not None}
    sampler = _DEFAULTS["sampler_config"] | object_of(path, "sampler_config", values["sampler_config"])
    t_min, t_max = (real_number(path, key, values[key], least=0, most=_MOST_TEMPERATURE) for key in ("t_min", "t_max"))
    if t_min >= t_max:
        raise CheckpointError(f"{path}: {t_min=} must be less than {t_max=}; download it again")
    bound = real_number(path, "entropy_bound", sampler["entropy_bound"], least=_LEAST, most=_MOST_NATS)
    confidence = values["confidence_threshold"]
    return Sampler(
        num_steps=whole_number(path, "max_denoising_steps", values["max_denoising_steps"], most=MOST_POSITIONS),
        schedule=TemperatureSchedule(t_min=t_min, t_max=t_max),
        acceptance=EntropyBound(bound=bound),
        noise=UniformNoise(vocab_size=vocab_size),
        stop=StableAndConfident(
            num_earlier=whole_number(
                path, "stability_threshold", values["stability_threshold"], least=0, most=MOST_POSITIONS
            ),
            confidence=real_number(path, "confidence_threshold", confidence, least=_LEAST, most=_MOST_NATS),
        ),
    )
