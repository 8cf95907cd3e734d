"""A model folder to a `Tokenizer` that changes no text, whatever its files say of normalising and of added tokens.

Qwen's tokenizers normalise to NFC, so that a letter with a combining accent would come back as another string, and
their fill-in-the-middle marks are added tokens that are not special, so that such a name in a user's file would become
the mark. Here no Unicode form is imposed, and every added token that is no white space is special. A folder without
`tokenizer.json` is read from `vocab.json` and `merges.txt`, split as `transformers/models/qwen2/tokenization_qwen2.py`
(5.23.0) does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, pre_tokenizers
from tokenizers import Tokenizer as _Backend
from tokenizers.models import BPE

from dgemma_engine.errors import CheckpointError
from dgemma_engine.tokenization.added_tokens import added_tokens, read_object
from dgemma_engine.tokenization.tokenizer import Tokenizer

_UNICODE_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
QWEN2_SPLITS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where Qwen2 splits a text before it merges bytes, as a regular expression."""


def read_exact_tokenizer(folder: Path, *, vocab_size: int) -> Tokenizer:
    """Returns the tokenizer of a folder.

    Args:
        folder: with `tokenizer.json`, or with `vocab.json` and `merges.txt`.
        vocab_size: rows of the model; those that no token has stand for no text.

    Raises:
        CheckpointError: the files are missing or damaged, or belong to a larger model.
    """
    path = folder / "tokenizer.json"
    backend = _from_json(path) if path.exists() else _from_vocabulary(folder)
    tokenizer = Tokenizer(backend, vocab_size=vocab_size)
    tokenizer.require_vocab(vocab_size)
    return tokenizer


def _from_json(path: Path) -> _Backend:
    values = read_object(path)
    values |= {"normalizer": _exact(values.get("normalizer")), "truncation": None, "padding": None}
    for token in values.get("added_tokens") or []:
        token["special"] = bool(str(token.get("content")).strip())
    try:
        return _Backend.from_str(json.dumps(values))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{path}: damaged ({error}); download it again") from error


def _exact(normalizer: Any) -> Any:
    """Returns the description of a normaliser without the parts that impose a form of Unicode."""
    if not isinstance(normalizer, dict):
        return None
    if normalizer.get("type") == "Sequence":
        kept = [part for part in map(_exact, normalizer.get("normalizers") or []) if part is not None]
        return {"type": "Sequence", "normalizers": kept} if kept else None
    return None if normalizer.get("type") in _UNICODE_FORMS else normalizer


def _from_vocabulary(folder: Path) -> _Backend:
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    for path in (vocabulary, merges):
        if not path.exists():
            raise CheckpointError(
                f"{folder}: has no tokenizer.json and no {path.name}; download the whole model folder again"
            )
    try:
        backend = _Backend(BPE.from_file(str(vocabulary), str(merges)))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(
            f"{folder}: vocab.json and merges.txt are damaged ({error}); download both again"
        ) from error
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2_SPLITS), "isolated"), by_bytes])
    backend.decoder = decoders.ByteLevel()
    for name, token_id in sorted(added_tokens(folder).items(), key=lambda item: item[1]):
        is_special = bool(name.strip())
        backend.add_tokens([AddedToken(name, special=is_special, normalized=False)])
        if is_special:
            backend.add_special_tokens([AddedToken(name, special=True, normalized=False)])
        if backend.token_to_id(name) != token_id:
            raise CheckpointError(
                f"{folder}: its added token {name} has the id {token_id} where {backend.token_to_id(name)} is next; "
                "download the tokenizer's files again"
            )
    return backend
