"""Where the model that comes with the package lies, and what a model's name on the command line stands for."""

from __future__ import annotations

import re
from pathlib import Path

from dgemma_engine.errors import CheckpointError, WrongUsage
from dgemma_engine.location import EMBEDDED

_FOLDER = Path(__file__).parent / EMBEDDED


def model_folder(model: str) -> Path:
    """Returns the folder of `model`: the package's own for `embedded`, else the path that it is.

    Raises:
        CheckpointError: this installation has no embedded model, or the path is no folder.
    """
    folder = _FOLDER if model == EMBEDDED else Path(model)
    if folder.is_dir():
        return folder
    if model == EMBEDDED:
        raise CheckpointError(f"{folder}: the embedded model is not installed; name a model folder with --model PATH")
    raise CheckpointError(f"{folder}: is not a folder; name a Hugging Face DiffusionGemma folder with --model PATH")


def require_model(model: str) -> None:
    """Makes sure that `model`, as the user wrote it, is a folder with a model in it. Reads no file.

    Raises:
        WrongUsage: it is not; the message says how to get one.
    """
    if model == EMBEDDED:
        return
    try:
        folder = Path(model).expanduser()
    except RuntimeError:
        raise WrongUsage(f"{model}: no such home folder; name the model folder by its absolute path") from None
    if not folder.is_dir():
        raise WrongUsage(_not_there(model, folder))
    if not (folder / "config.json").is_file():
        raise WrongUsage(f"{folder}: holds no config.json; name the folder of a DiffusionGemma model, or `embedded`")
    if not any(folder.glob("*.safetensors")):
        raise WrongUsage(f"{folder}: holds no weights (*.safetensors); download them into the folder")


def _not_there(model: str, folder: Path) -> str:
    if folder.exists():
        return f"{folder}: is not a folder; name the folder of a DiffusionGemma model"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        name = folder.name
        return (
            f"{model}: no such folder, and models are not downloaded by name; get it with: hf download {model} "
            f"--local-dir {name}, then use --model {name}"
        )
    return f"{folder}: no such folder; name the folder of a DiffusionGemma model, or `embedded`"
