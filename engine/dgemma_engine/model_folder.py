"""Where the model that comes with the package lies, and what a model's name on the command line stands for."""

from __future__ import annotations

from pathlib import Path

from dgemma_engine.errors import CheckpointError
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
