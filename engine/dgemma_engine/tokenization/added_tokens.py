"""Tokens that were added to a vocabulary, as the files of a model folder name them. Reads no text and no weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dgemma_engine.errors import CheckpointError


def added_tokens(folder: Path) -> dict[str, int]:
    """Returns the ids of added tokens by their names; empty where no file names any.

    Args:
        folder: of the model, with `tokenizer_config.json`, `added_tokens.json` or `tokenizer.json`; need not exist.

    Raises:
        CheckpointError: a file is damaged.
    """
    found: dict[str, int] = {}
    listed = read_object(folder / "tokenizer.json").get("added_tokens", [])
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict):
            found[str(entry.get("content"))] = _id(folder, entry.get("id"))
    for name, token_id in read_object(folder / "added_tokens.json").items():
        found[name] = _id(folder, token_id)
    decoder = read_object(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
    for token_id, entry in decoder.items() if isinstance(decoder, dict) else ():
        if isinstance(entry, dict):
            found[str(entry.get("content"))] = _id(folder, token_id)
    return found


def mask_token(folder: Path) -> str | None:
    """Returns what the tokenizer calls its mask token, if it has one.

    Raises:
        CheckpointError: a file is damaged.
    """
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        token = read_object(folder / name).get("mask_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            return token
    return None


def read_object(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file; empty where there is no file.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); download it again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: must hold a JSON object; download it again")
    return values


def _id(folder: Path, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise CheckpointError(f"{folder}: an added token has the id {value!r}; download the tokenizer again") from None
