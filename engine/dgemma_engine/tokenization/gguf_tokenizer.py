"""The tokenizer that a GGUF file's metadata describes, as a `Tokenizer`: byte-level BPE of GPT-2, or Gemma 4's BPE.

Every token that is not an ordinary one is special, whatever the file calls it, so no text of a user becomes one. A file
has no normaliser, so `decode` inverts `encode` exactly. Characters that a vocabulary of GPT-2's kind cannot spell are
read as U+FFFD: SmolLM2 lacks six control characters and the planes 4 to 11, which Unicode leaves empty. Gemma 4 spells
any character in bytes that has no token.
"""

from __future__ import annotations

from collections.abc import Mapping

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as _Backend
from tokenizers.models import BPE

from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.errors import CheckpointError
from dgemma_engine.tokenization.exact_tokenizer import QWEN2_SPLITS
from dgemma_engine.tokenization.tokenizer import Tokenizer

_NORMAL, _BYTE = 1, 6
_GEMMA = "gemma4"
# `tokenizer.ggml.pre`: whether each digit is a token of its own, of those that split by GPT-2's regular expression.
_SINGLE_DIGITS = {"smollm": True, "starcoder": True, "refact": True, "gpt-2": False}
_QWEN2 = "qwen2"

# ASCII's printable characters and blanks, and the bytes inside longer characters.
_NEEDED_BYTES = frozenset((*b"\t\n\r", *range(0x20, 0x7F), *range(0x80, 0xC0), *range(0xC2, 0xF1)))


def read_tokenizer(file: GgufFile) -> Tokenizer:
    """Returns the tokenizer of a file.

    Raises:
        CheckpointError: the file holds none, or one of another kind; the message says which.
    """
    model = file.get("tokenizer.ggml.model", str)
    splitting = file.get("tokenizer.ggml.pre", str, "")
    if model == _GEMMA:
        return _read_gemma(file)
    known = (*_SINGLE_DIGITS, _QWEN2)
    if model != "gpt2" or splitting not in known:
        raise CheckpointError(
            f"{file.path}: its tokenizer is {model!r} with the splitting {splitting!r}, only {_GEMMA!r}, and 'gpt2' "
            f"with {', '.join(map(repr, known))} can be used; choose another model"
        )
    vocab, merges, types = _read_parts(file)
    missing = _missing_bytes(vocab)
    if needed := [byte for byte in missing if byte in _NEEDED_BYTES]:
        raise _damaged(file, f"no token for {len(needed)} bytes that ordinary texts are made of")
    backend = _backend(file, vocab, merges)
    if unspelled := "".join(map(_characters_starting_with, missing)):
        backend.normalizer = normalizers.Replace(Regex(f"[{unspelled}]"), "\ufffd")
    backend.pre_tokenizer = _pre_tokenizer(splitting)
    backend.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(vocab, types, strict=True) if kind != _NORMAL]
    return _with_special(backend, special)


def _pre_tokenizer(splitting: str) -> pre_tokenizers.PreTokenizer:
    if splitting == _QWEN2:
        by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2_SPLITS), "isolated"), by_bytes])
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, by_bytes]) if _SINGLE_DIGITS[splitting] else by_bytes


def _read_gemma(file: GgufFile) -> Tokenizer:
    """Splits at line breaks only; a character without a token is spelled in bytes, which are tokens of their own.

    The file's tokens have U+2581 for a space. Here they have the space itself, so that a text's own U+2581, which is
    then in no token, is spelled in bytes and comes back.
    """
    stored, stored_merges, types = _read_parts(file)
    vocab = {_spaced(token): token_id for token, token_id in stored.items()}
    if len(vocab) != len(stored):
        raise _damaged(file, "tokens that differ in U+2581 and spaces alone")
    if missing := [byte for byte in range(256) if f"<0x{byte:02X}>" not in vocab]:
        raise _damaged(file, f"no token for {len(missing)} bytes")
    # Runs of blanks and line breaks are called user-defined, and are text.
    special = {
        token for token, kind in zip(vocab, types, strict=True) if kind not in (_NORMAL, _BYTE) and token.strip()
    }
    spelled = ((_spaced(left), _spaced(right)) for left, right in stored_merges)
    # No text may become a special token or a byte's, by whatever merges.
    unreachable = special.union(token for token, kind in zip(vocab, types, strict=True) if kind == _BYTE)
    merges = [(left, right) for left, right in spelled if left + right not in unreachable]
    backend = _backend(file, vocab, merges, byte_fallback=True)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n+"), "isolated")
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return _with_special(backend, sorted(special))


def _spaced(token: str) -> str:
    return token.replace("\u2581", " ")


def _read_parts(file: GgufFile) -> tuple[dict[str, int], list[tuple[str, str]], list[int]]:
    """Returns the tokens by id, the pairs that are merged, and the type of each token."""
    tokens, types = file.strings("tokenizer.ggml.tokens"), file.integers("tokenizer.ggml.token_type")
    vocab = {token: token_id for token_id, token in enumerate(tokens)}
    merges = [(left, right) for left, _, right in (m.partition(" ") for m in file.strings("tokenizer.ggml.merges"))]
    if len(vocab) != len(tokens) or len(types) != len(tokens):
        raise _damaged(file, f"{len(tokens)} tokens, {len(vocab)} of them different, with {len(types)} types")
    return vocab, merges, types


def _backend(
    file: GgufFile, vocab: dict[str, int], merges: list[tuple[str, str]], *, byte_fallback: bool = False
) -> _Backend:
    try:
        return _Backend(BPE(vocab=vocab, merges=merges, byte_fallback=byte_fallback))
    except Exception as error:  # the library raises bare Exception
        raise _damaged(file, f"merges that do not fit its tokens ({error})") from error


def _with_special(backend: _Backend, special: list[str]) -> Tokenizer:
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return Tokenizer(backend)


def _missing_bytes(vocab: Mapping[str, int]) -> list[int]:
    """Returns the bytes without a token, in GPT-2's alphabet: printable bytes are themselves, the others follow 255."""
    shown = [byte for byte in range(256) if chr(byte).isprintable() and not chr(byte).isspace()]
    others = [byte for byte in range(256) if byte not in shown]
    letters = {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [byte for byte, letter in letters.items() if letter not in vocab]


def _characters_starting_with(byte: int) -> str:
    """Returns the range of characters whose UTF-8 starts with a byte, for a regular expression; empty if none does."""
    starts = ((0xF5, None), (0xF0, 18), (0xE0, 12), (0xC2, 6), (0x80, None), (0x00, 0))
    bits = next(bits for first, bits in starts if byte >= first)
    if bits is None:
        return ""
    payload = byte & (0x7F, 0x1F, 0x0F, 0x07)[bits // 6]
    return f"\\x{{{payload << bits:x}}}-\\x{{{(payload + 1 << bits) - 1:x}}}"


def _damaged(file: GgufFile, what: str) -> CheckpointError:
    return CheckpointError(f"{file.path}: its tokenizer is damaged: it has {what}; get the file again")
