"""What a checkpoint says of itself, before any of its weights is read; a family is chosen by it.

Turns a path into `CheckpointFacts`: a Hugging Face folder, or a GGUF file. A sidecar file of ours comes first:
`family.json` in a folder, `NAME.family.json` beside `NAME.gguf`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.errors import CheckpointError

SIDECAR = "family.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    """One checkpoint.

    Attributes:
        path: the folder or the file.
        gguf: its header, of a GGUF file.
        model_type: `model_type` of `config.json`, or a GGUF's `general.architecture`.
        architectures: class names of `config.json`; empty for a GGUF.
        sidecar: our own description; empty where there is none.
        config: content of `config.json`; empty for a GGUF.
    """

    path: Path
    gguf: GgufFile | None
    model_type: str
    architectures: tuple[str, ...]
    sidecar: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def of_config(cls, path: Path, config: Mapping[str, Any], sidecar: Mapping[str, Any]) -> Self:
        """Returns the facts of a checkpoint that is known by its configuration.

        Args:
            path: its folder, or its name where it is not there.
            config: content of `config.json`.
            sidecar: our own description.
        """
        names = config.get("architectures")
        return cls(
            path=path,
            gguf=None,
            model_type=str(config.get("model_type")),
            architectures=tuple(map(str, names)) if isinstance(names, list | tuple) else (),
            sidecar=sidecar,
            config=config,
        )


def read_facts(path: Path) -> CheckpointFacts:
    """Reads the facts of a checkpoint.

    Raises:
        CheckpointError: nothing is there, or what is there is no checkpoint; the message says what to do.
    """
    if path.is_dir():
        return CheckpointFacts.of_config(path, _json(path / "config.json"), _sidecar(path / SIDECAR))
    gguf = GgufFile(path)
    return CheckpointFacts(
        path=path,
        gguf=gguf,
        model_type=gguf.get("general.architecture", str),
        architectures=(),
        sidecar=_sidecar(path.with_name(f"{path.stem}.{SIDECAR}")),
    )


def _sidecar(path: Path) -> dict[str, Any]:
    return _json(path) if path.exists() else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent}: no {path.name} here; name a model folder or a GGUF file") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); get it again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: must hold a JSON object; get it again")
    return values
