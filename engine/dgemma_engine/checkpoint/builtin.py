"""Where the model that comes with the package lies, and what a model's name on the command line stands for."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from dgemma_engine.errors import CheckpointError, ModelStoreError, WrongUsage
from dgemma_engine.model_store.catalogue import CATALOGUE, OLD_NAMES, TINY, name_of_file
from dgemma_engine.model_store.choice import hub_path
from dgemma_engine.model_store.entry import Entry
from dgemma_engine.model_store.hub_name import HubName
from dgemma_engine.model_store.user_folder import ModelStore

_FOLDER = Path(__file__).parents[1] / "embedded"
_GGUF = ".gguf"
_NAME_ONE = "name a model folder, a GGUF file or a short name that `dgemma-engine models` lists"
# Least similarity of a name that is suggested: `smal` is like small, `folder` is not like diffucoder.
_NEAR = 0.75


def model_folder(model: str) -> Path:
    """Returns where the model lies that a short name or path means: a folder, or a GGUF file.

    Raises:
        CheckpointError: it is not there; the message says how to get it.
        WrongUsage: `~NAME` is no home folder.
    """
    model = OLD_NAMES.get(model, model)
    if (path := hub_path(model, os.environ)) is not None:
        return path
    if model == TINY:
        if not _FOLDER.is_dir():
            raise CheckpointError(
                f"{_FOLDER}: the model tiny is not installed; install dgemma-lsp again, or choose another"
            )
        return _FOLDER
    if model in CATALOGUE:
        return _fetched(CATALOGUE[model])
    path = _expanded(model)
    if not path.is_dir() and not (path.suffix == _GGUF and path.is_file()):
        raise CheckpointError(f"{path}: is no model folder and no GGUF file; {_NAME_ONE}")
    return path


def model_name(path: Path) -> str:
    """Returns what a user calls the model that lies at a path: its short name, else the name of its file or folder."""
    return TINY if path == _FOLDER else name_of_file(path.name)


def require_model(model: str) -> None:
    """Makes sure that `model`, as the user wrote it, is a model that is there. Reads no weights.

    Raises:
        WrongUsage: it is not, or cannot be read; the message says what to do.
    """
    model = OLD_NAMES.get(model, model)
    if model == TINY or hub_path(model, os.environ) is not None:
        return
    if model in CATALOGUE:
        try:
            _fetched(CATALOGUE[model])
        except (CheckpointError, ModelStoreError) as error:
            raise WrongUsage(str(error)) from None
        return
    path = _expanded(model)
    try:
        _require_readable(model, path)
    except OSError as error:
        where = error.filename or path
        raise WrongUsage(
            f"{where}: cannot be read ({error.strerror}); make it readable, or download it again"
        ) from error


def require_place(model: str) -> None:
    """Makes sure that `model` is a short name, or that a folder or GGUF file is there. Reads nothing of it.

    Raises:
        WrongUsage: it is not; the message names the nearest short name.
    """
    path = hub_path(model, os.environ) or _expanded(model)
    if model not in CATALOGUE and not path.is_dir() and not (path.suffix == _GGUF and path.is_file()):
        raise WrongUsage(_missing(model, path))


def _expanded(model: str) -> Path:
    try:
        return Path(model).expanduser()
    except RuntimeError:
        raise WrongUsage(f"{model}: no such home folder; name the model folder by its absolute path") from None


def _require_readable(model: str, path: Path) -> None:
    if path.suffix == _GGUF and path.is_file():
        path.open("rb").close()
        return
    if not path.is_dir():
        raise WrongUsage(_missing(model, path))
    if not (path / "config.json").is_file():
        raise WrongUsage(f"{path}: no config.json; {_NAME_ONE}")
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        raise WrongUsage(f"{path}: no *.safetensors; download the weights into the folder")
    for file in (path / "config.json", *weights):
        file.open("rb").close()


def _fetched(entry: Entry) -> Path:
    path = ModelStore.locate(os.environ).model_path(entry)
    if path is None:
        raise CheckpointError(f"the model {entry.name} is not there yet; {entry.remedy}")
    return path


def _missing(model: str, folder: Path) -> str:
    if folder.exists():
        return f"{folder}: is not a folder and no GGUF file; {_NAME_ONE}"
    if HubName.parse(model) is not None:
        return f"{model}: no such folder, and not fetched from the hub yet; run: dgemma-engine pull {model}"
    # The server and its engine hold a relative name as an absolute path.
    if near := difflib.get_close_matches(folder.name.lower(), [*CATALOGUE, *OLD_NAMES], n=1, cutoff=_NEAR):
        return f"{model}: no such model; did you mean {near[0]}?"
    return f"{folder}: no such folder or GGUF file; {_NAME_ONE}"
