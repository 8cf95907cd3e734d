"""What a run leaves on disk: a state to resume from, and model folders that the engine and `transformers` load.

Every file is written atomically: a full disk or a crash leaves the last good one whole.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.checkpoint.loader import save_checkpoint
from dgemma_engine.durable_files import put_in_place, write_whole
from dgemma_engine.errors import CannotResume, TrainingError
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.tools.corpus import bpe
from dgemma_engine.tools.training.train_config import differing_keys

_TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": bpe.SPECIAL_TOKENS[bpe.BOS],
    "eos_token": bpe.SPECIAL_TOKENS[bpe.EOS],
    "pad_token": bpe.SPECIAL_TOKENS[bpe.PAD],
}

STATE = "state.pt"
LATEST = "latest"
BEST = "best"

SLOT_GENERATION: dict[str, Any] = {
    "max_denoising_steps": 16,
    "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.5},
    "t_min": 0.4,
    "t_max": 0.8,
    "stability_threshold": 1,
    "confidence_threshold": 0.05,
}
"""Steps and bounds for a slot instead of a whole canvas: a hole is a few tokens, so it settles within a dozen steps."""

TASK_GENERATION: dict[str, Any] = SLOT_GENERATION | {
    "max_denoising_steps": 48,
    "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.001},
}
"""For a canvas whose tokens follow from each other: few at a time, each of them sure."""


def save_state(state: dict[str, Any], out: Path) -> None:
    """Writes `out/state.pt`.

    Raises:
        TrainingError: the disk is full or the folder cannot be written; the last good state is untouched.
    """
    unfinished = out / f".{STATE}.part"
    try:
        with unfinished.open("wb") as file:
            torch.save(state, file)
        put_in_place(unfinished, out / STATE)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        unfinished.unlink(missing_ok=True)
        raise unwritable(out / STATE, error) from error


def load_state(out: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Reads `out/state.pt`.

    Args:
        out: folder of the run.
        config: what the run is about to use.

    Raises:
        CannotResume: there is none, it is damaged, or it belongs to another configuration.
    """
    path = out / STATE
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        saved = state["config"]
    except FileNotFoundError as error:
        raise CannotResume(f"{path}: missing, nothing to resume; start without --resume") from error
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = "cannot be read" if isinstance(error, OSError) else "is damaged"
        raise CannotResume(f"{path}: {reason}; start without --resume") from error
    if keys := differing_keys(config, saved):
        raise CannotResume(
            f"{path}: was made with another configuration (different: {', '.join(keys)}); "
            "use that one, or another --out"
        )
    return state


def export(
    model: DiffusionGemma,
    form: InfillFormat,
    save_tokenizer: Callable[[Path], None],
    folder: Path,
    *,
    generation: Mapping[str, Any],
    card: str,
) -> None:
    """Writes a complete model folder: weights, configurations, tokenizer, infilling format, card.

    Args:
        model: what to save.
        form: how it was trained to be asked.
        save_tokenizer: writes `tokenizer.json` into a folder.
        folder: made if missing.
        generation: of the sampler, for `generation_config.json`.
        card: text of the folder's `README.md`.

    Raises:
        TrainingError: the disk is full or the folder cannot be written; files that were there are whole.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_tokenizer(folder)
        form.save(folder)
        for name, values in {"tokenizer_config.json": _TOKENIZER_CONFIG, "generation_config.json": generation}.items():
            write_whole(folder / name, (json.dumps(values, indent=2) + "\n").encode())
        write_whole(folder / "README.md", card.encode())
        save_checkpoint(model, folder)
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(path: Path, error: Exception) -> TrainingError:
    """Returns the fault of a file or folder that could not be written; what `path` held before is kept.

    Args:
        path: as it is named when it is whole.
        error: of the system, or of a library that met one.
    """
    kept = "what was saved before is kept: free some space, then use --resume"
    remedy = kept if path.exists() else "free some space, then start again"
    return TrainingError(f"{path}: cannot be written ({_reason(error)}); {remedy}")


def _reason(error: BaseException) -> str:
    """Returns the operating system's message: a library's own message names its source lines."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return "the disk may be full"
