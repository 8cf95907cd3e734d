"""The files of a repository at the hub -> those that a model needs, and no code. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from dgemma_engine.errors import ModelStoreError
from dgemma_engine.model_store.hub_name import HubName

INDEX = "model.safetensors.index.json"
"""Names the files of weights that are in several parts."""
_WHOLE = "model.safetensors"
_WEIGHTS, _GGUF = ".safetensors", ".gguf"
_OF_SEVERAL = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_NEEDED = frozenset(
    {
        "config.json",
        "generation_config.json",
        "infill.json",
        "hf_quant_config.json",
        "quantization_config.json",
        INDEX,
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "LICENSE",
        "LICENSE.txt",
        "README.md",
    }
)
_SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file of a repository.

    Attributes:
        path: in the repository.
        num_bytes: its size.
        sha256: of its content; empty where the hub does not say.
        blob_sha1: by which git names its content; empty where the hub does not say.
    """

    path: str
    num_bytes: int
    sha256: str = ""
    blob_sha1: str = ""


def needed_files(name: HubName, files: Sequence[HubFile], indexed: Callable[[], Collection[str]]) -> list[HubFile]:
    """Returns the files to fetch, the small ones first: a folder of weights, or the one GGUF file that is named.

    Args:
        name: of the model.
        files: all of its repository.
        indexed: returns the files that its index names; called only where there is an index.

    Raises:
        ModelStoreError: there is no such file, no weights of a kind that is read, or a GGUF file in several parts.
    """
    if name.file:
        chosen = [file for file in files if file.path == name.file]
        if not chosen:
            raise ModelStoreError(f"{name.repo} has no file {name.file}; {_ggufs(files)}")
        if not name.file.endswith(_GGUF):
            raise ModelStoreError(f"{name}: only GGUF files are fetched one by one; leave `:{name.file}` out")
        if _OF_SEVERAL.search(name.file):
            raise ModelStoreError(f"{name}: GGUF files in several parts are not read; name one that is whole")
        return chosen
    top = [file for file in files if "/" not in file.path]
    weights = [file for file in top if file.path.endswith(_WEIGHTS)]
    paths = {file.path for file in top}
    if INDEX in paths:
        # Beside them may lie the same weights in another layout, or adapters.
        named = indexed()
        weights = [file for file in weights if file.path in named]
    elif _WHOLE in paths:
        weights = [file for file in weights if file.path == _WHOLE]
    if not weights:
        raise ModelStoreError(f"{name.repo} has no *.safetensors; {_ggufs(files)}")
    if "config.json" not in paths:
        raise ModelStoreError(f"{name.repo} has no config.json, so it is no model of a kind that is read")
    return sorted((file for file in top if file.path in _NEEDED or file in weights), key=lambda file: file.num_bytes)


def _ggufs(files: Sequence[HubFile]) -> str:
    ggufs = [file.path for file in files if file.path.endswith(_GGUF) and not _OF_SEVERAL.search(file.path)]
    if not ggufs:
        return "choose another repository"
    more = f" and {len(ggufs) - _SHOWN} more" if len(ggufs) > _SHOWN else ""
    return f"name one of its GGUF files after a colon: {', '.join(ggufs[:_SHOWN])}{more}"
