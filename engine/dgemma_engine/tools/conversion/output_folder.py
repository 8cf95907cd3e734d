"""A model folder made from another: it appears whole, or not at all.

Everything is written to a hidden folder beside the place and renamed at the end; `config.json`, without which nothing
loads, comes after the weights. What is no weight is copied. A calibration goes along with the new weights' fingerprint:
what scores mean survives a change of number format (docs/decisions/0012).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dgemma_engine.checkpoint import calibration
from dgemma_engine.checkpoint.calibration import Calibration
from dgemma_engine.checkpoint.safetensors_reader import INDEX
from dgemma_engine.errors import CheckpointError, EngineError

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_NOT_COPIED = ("config.json", INDEX, calibration.FILE_NAME, "quantization_report.json", "hf_quant_config.json")


@contextmanager
def new_folder(source: Path, place: Path) -> Generator[Path]:
    """Yields an empty folder that becomes `place` when the block ends well, and disappears when it does not.

    Raises:
        EngineError: the place is the source, is taken, or cannot be written.
    """
    if place.resolve() == source.resolve():
        raise EngineError(f"{place}: is the source itself; name another folder")
    if place.is_symlink():
        raise EngineError(f"{place}: is a link, which would be replaced; name the folder itself or a new one")
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise EngineError(f"{place}: is there already and not an empty folder; name another one")
    unfinished = place.resolve().parent / f".{place.resolve().name}.part"
    try:
        unfinished.mkdir(parents=True)
    except FileExistsError:
        raise EngineError(f"{unfinished}: is left from an interrupted run, or one is under way; delete it") from None
    except OSError as error:
        raise _unwritable(place, error) from error
    try:
        yield unfinished
        unfinished.replace(place)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise _unwritable(place, error) from error
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def require_space(folder: Path, num_bytes: int) -> None:
    """Refuses to start what the disk cannot hold.

    Args:
        folder: on the disk.
        num_bytes: what will be written.

    Raises:
        EngineError: with what is needed and what is free.
    """
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise EngineError(
            f"{folder.parent}: {num_bytes / 1e9:,.2f} GB are needed and {free / 1e9:,.2f} GB are free; make room or "
            "name a folder on another disk"
        )


def side_files(source: Path) -> list[Path]:
    """Returns what a model folder holds beside weights and `config.json`."""
    files = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
    return [path for path in files if path.suffix not in _WEIGHTS and path.name not in _NOT_COPIED]


def complete(source: Path, folder: Path, config: dict[str, Any]) -> str | None:
    """Adds to the weights in `folder` what else belongs to a model.

    Args:
        source: folder of the model it was made from.
        folder: has its weights already.
        config: content of its `config.json`.

    Returns:
        Why the calibration was not copied; None if it was or there is none.
    """
    for path in side_files(source):
        shutil.copyfile(path, folder / path.name)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    try:
        measured = Calibration.load(source, calibration.fingerprint(source))
    except CheckpointError as error:
        return f"calibration not copied: {error}"
    if measured.fingerprint:
        replace(measured, fingerprint=calibration.fingerprint(folder)).save(folder)
    return None


def _unwritable(place: Path, error: OSError) -> EngineError:
    return EngineError(f"{place}: cannot be written ({error.strerror or error}); make room or name another folder")
