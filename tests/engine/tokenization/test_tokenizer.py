"""Tokens that have no text, and texts cut at token limits."""

from __future__ import annotations

from pathlib import Path

from dgemma_engine.tokenization.tokenizer import Tokenizer
from tokenizers import AddedToken, decoders, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE


def test_reserved_tokens_are_never_text(tmp_path: Path) -> None:
    """Gemma's `<unused0>` and following are ordinary vocabulary entries; only their names mark them as reserved."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<pad>", "<unused0>", "<unused1>", *alphabet, "<unused2>", "<unused4>"]
    backend = Backend(BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<pad>"])
    backend.add_tokens([AddedToken("<unused1>", special=False)])
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)
    third = len(alphabet) + 3
    assert tokenizer.special_ids == (0, 1, 2, third)
    texts = tokenizer.token_texts()
    assert [texts[token_id] for token_id in tokenizer.special_ids] == [None] * 4
    assert texts[names.index("a")] == "a"


def test_without_reserved_tokens_the_special_ones_remain(tmp_path: Path) -> None:
    backend = Backend(BPE(vocab={"<pad>": 0, "a": 1}, merges=[]))
    backend.add_special_tokens(["<pad>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path).special_ids == (0,)


def test_head_ends_where_a_token_and_a_character_end() -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {name: i for i, name in enumerate([*alphabet, "ab", "abc"])}
    backend = Backend(BPE(vocab=vocab, merges=[("a", "b"), ("ab", "c")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = Tokenizer(backend)
    assert [tokenizer.head("xabcd", most) for most in range(6)] == ["", "x", "xabc", "xabcd", "xabcd", "xabcd"]
    # Two bytes, of which the first is no text.
    assert [tokenizer.head("aé", most) for most in range(4)] == ["", "a", "a", "aé"]
    assert [tokenizer.head("a\ud800b", most) for most in (1, 2)] == ["a", "a"]
    assert [tokenizer.count(text) for text in ("", "xabcd", "aé")] == [0, 3, 3]
