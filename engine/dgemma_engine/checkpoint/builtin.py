"""Where the model that comes with the package lies, and what a model's name on the command line stands for."""

from __future__ import annotations

import re
from pathlib import Path

from dgemma_engine.errors import CheckpointError, WrongUsage
from dgemma_engine.ipc.endpoint import EMBEDDED

_FOLDER = Path(__file__).parents[1] / EMBEDDED


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
    """Makes sure that `model`, as the user wrote it, is a folder with a model in it. Reads no weights.

    Raises:
        WrongUsage: it is not, or cannot be read; the message says what to do.
    """
    if model == EMBEDDED:
        return
    try:
        folder = Path(model).expanduser()
    except RuntimeError:
        raise WrongUsage(f"{model}: no such home folder; name the model folder by its absolute path") from None
    try:
        if not folder.is_dir():
            raise WrongUsage(_missing(model, folder))
        if not (folder / "config.json").is_file():
            raise WrongUsage(f"{folder}: no config.json; name the folder of a DiffusionGemma model, or `embedded`")
        weights = sorted(folder.glob("*.safetensors"))
        if not weights:
            raise WrongUsage(f"{folder}: no *.safetensors; download the weights into the folder")
        for path in (folder / "config.json", *weights):
            path.open("rb").close()
    except OSError as error:
        path = error.filename or folder
        raise WrongUsage(
            f"{path}: cannot be read ({error.strerror}); make it readable, or download it again"
        ) from error


def _missing(model: str, folder: Path) -> str:
    if folder.exists():
        return f"{folder}: is not a folder; name the folder of a DiffusionGemma model"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        name = folder.name
        return (
            f"{model}: no such folder, and models are not downloaded by name; get it with: hf download {model} "
            f"--local-dir {name}, then use --model {name}"
        )
    return f"{folder}: no such folder; name the folder of a DiffusionGemma model, or `embedded`"
