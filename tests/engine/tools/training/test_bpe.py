from __future__ import annotations

import pytest
from dgemma_engine.errors import TrainingError
from dgemma_engine.tokenization.tokenizer import Tokenizer as EngineTokenizer
from dgemma_engine.tools.corpus.bpe import BOS, EOS, FILL, MORE, PREFIX, SPECIAL_TOKENS, SUFFIX, train_bpe
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

TEXT = "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = 1234\n\n\n" * 20


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe([TEXT], 290)


def test_special_tokens_have_fixed_ids(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(name) for name in SPECIAL_TOKENS] == list(range(16))
    assert [SPECIAL_TOKENS[i] for i in (EOS, BOS, PREFIX, SUFFIX, FILL, MORE)] == [
        "<eos>", "<bos>", "<|prefix|>", "<|suffix|>", "<fill>", "<more>",
    ]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet=st.characters(codec="utf-8")) | st.text(alphabet="ab_1 \t\r\n<fill>|\u3000😀é\x0c"))
def test_decode_inverts_encode(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert min(ids, default=16) >= 16


def test_special_names_in_text_stay_text_after_saving(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    loaded = EngineTokenizer.load(folder)
    text = "x = '<fill><eos>' # <|prefix|>"
    assert min(loaded.encode(text)) >= 16
    assert loaded.decode(loaded.encode(text)) == text
    assert loaded.special_ids == tuple(range(16))


def check_pieces(tokenizer: Tokenizer, text: str, expected: list[str]) -> None:
    assert tokenizer.pre_tokenizer is not None
    pieces = [text[start:end] for _, (start, end) in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
    assert pieces == expected


def test_pieces_keep_newlines_indents_and_digits_apart(tokenizer: Tokenizer) -> None:
    check_pieces(tokenizer, "a\n\n        b = 12", ["a", "\n", "\n", "        ", "b", " =", " ", "1", "2"])
    check_pieces(tokenizer, "    x", ["    ", "x"])
    check_pieces(tokenizer, "a\r\n\tb  # c", ["a", "\r\n", "\t", "b", " ", " #", " c"])
    check_pieces(tokenizer, "_my_name.x1", ["_my_name", ".", "x", "1"])


def test_indents_become_single_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("\n        self", add_special_tokens=False).tokens == ["Ċ", "Ġ" * 8, "self"]


def test_too_small_a_corpus_is_an_error() -> None:
    with pytest.raises(TrainingError, match="too small for a vocabulary of 4096"):
        train_bpe([TEXT], 4_096)
    with pytest.raises(TrainingError, match="vocab_size=100 must be at least 272"):
        train_bpe([TEXT], 100)
