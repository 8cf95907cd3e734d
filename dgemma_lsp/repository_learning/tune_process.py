"""Runs `dgemma-engine tune` and `dgemma-engine adapters rm`, and reads what they print. Trains nothing itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from dgemma_lsp import child_process

# A training step, and writing the adapter trained so far.
_END_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """The result of a training.

    Attributes:
        message: one sentence for the user.
        is_installed: whether the adapter is better than none, and used from now on.
        before: share of held-out ends of lines that were filled exactly before, 0 to 1; None where there were none.
        after: likewise with the adapter.
    """

    message: str
    is_installed: bool
    before: float | None
    after: float | None


def tune_command(
    root: str, *, model: str, device: str, private_files: Sequence[str], program: Sequence[str] = ()
) -> list[str]:
    """Returns the command that trains an adapter and prints one JSON object a line.

    The command continues a training that was stopped, in whichever window or editor, and starts again where that
    cannot be continued.

    Args:
        root: absolute path of the repository.
        model: short name or path, as the settings have it.
        device: likewise.
        private_files: patterns of files that it must not read.
        program: stands in for `dgemma-engine`.
    """
    # As one argument with `=`: a pattern may begin with a dash.
    patterns = [f"--private-file={pattern}" for pattern in private_files]
    options = ["--json", "--resume-if-possible", f"--model={model}", f"--device={device}", *patterns]
    return [*(program or _program()), "tune", root, *options]


def forget_command(root: str, *, program: Sequence[str] = ()) -> list[str]:
    """Returns the command that removes the adapter of a repository.

    Args:
        root: absolute path of the repository.
        program: stands in for `dgemma-engine`.
    """
    return [*(program or _program()), "adapters", "rm", root]


async def learn(command: Sequence[str], on_progress: Callable[[int, str], None]) -> Learnt:
    """Trains an adapter. Cancelling the caller ends the process, which stores its state for the next one.

    Args:
        command: see `tune_command`.
        on_progress: called with a percentage and a text.

    Raises:
        ProcessFailed: nothing was installed; the message says why.
    """
    learnt: list[Learnt] = []

    def read(line: bytes) -> None:
        match _report(line):
            case Learnt() as one:
                learnt.append(one)
            case (percent, message):
                on_progress(percent, message)
            case None:
                pass

    await child_process.run(command, read, name="dgemma-engine tune", patience_s=_END_S)
    if not learnt:
        raise child_process.ProcessFailed("dgemma-engine tune ended without a result; run it in a terminal")
    return learnt[-1]


async def forget(command: Sequence[str]) -> None:
    """Removes an adapter.

    Args:
        command: see `forget_command`.

    Raises:
        ProcessFailed: nothing was removed; the message says why.
    """
    await child_process.run(command, lambda _line: None, name="dgemma-engine adapters", patience_s=_END_S)


def _program() -> list[str]:
    # -P: nothing of the folder that the server was started in is imported.
    return [sys.executable, "-P", "-m", "dgemma_engine"]


def _report(line: bytes) -> Learnt | tuple[int, str] | None:
    """Returns the result or the progress that a line holds; None for any other line."""
    try:
        found: Any = json.loads(line)
        if "installed" in found:
            return Learnt(
                message=str(found["message"]),
                is_installed=found["installed"] is True,
                before=_share(found["before"]),
                after=_share(found["after"]),
            )
        return int(found["percent"]), str(found["message"])
    except (ValueError, KeyError, TypeError):
        return None


def _share(value: object) -> float | None:
    return None if value is None else float(cast(float, value))
