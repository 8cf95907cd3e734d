"""What `quantize` and `export` share: which sources they take, progress, and the line of the result."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dgemma_engine.checkpoint.builtin import model_folder, require_model
from dgemma_engine.errors import EngineUnavailable, WrongUsage

if TYPE_CHECKING:
    from dgemma_engine.tools.conversion.converter import Converted

_STEP_PERCENT = 5


def require_torch() -> None:
    """Checks that torch is installed.

    Raises:
        EngineUnavailable: it is not; the message says how to install it.
    """
    if importlib.util.find_spec("torch") is None:
        raise EngineUnavailable("torch is not installed; run: pip install 'dgemma-lsp[engine]'")


def require_folder(model: str, doing: str) -> Path:
    """Returns the folder of a model that can be converted.

    Args:
        model: short name or path.
        doing: "quantised" or "exported".

    Raises:
        WrongUsage: it is not there, or is a GGUF file.
    """
    require_model(model)
    folder = model_folder(model)
    if not folder.is_dir():
        raise WrongUsage(
            f"{model}: a GGUF file cannot be {doing}; name a folder of safetensors of a DiffusionGemma, or `tiny`"
        )
    return folder


def progress(doing: str) -> Callable[[int], None]:
    """Returns a function that prints a line to standard error each time the percentage has grown by 5."""
    shown = iter(range(_STEP_PERCENT, 101, _STEP_PERCENT))
    due = next(shown)

    def report(percent: int) -> None:
        nonlocal due
        if percent < due:
            return
        sys.stderr.write(f"dgemma-engine: {doing}, {percent} %\n")
        sys.stderr.flush()
        due = next((step for step in shown if step > percent), 101)

    return report


def say_result(place: Path, converted: Converted) -> None:
    """Prints what was written."""
    if converted.warning is not None:
        sys.stderr.write(f"dgemma-engine: warning: {converted.warning}\n")
    before, after = converted.num_bytes_before / 1e6, converted.num_bytes / 1e6
    sys.stdout.write(f"{place}: {after:,.1f} MB of weights, {before:,.1f} MB before\n")
