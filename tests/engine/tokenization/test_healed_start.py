"""Token healing by whole tokens: the text removed from the prefix, and the tokens that may spell it again."""

from __future__ import annotations

from pathlib import Path

import pytest
from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.tokenization.gguf_tokenizer import read_tokenizer
from dgemma_engine.tokenization.healed_start import HealedStart, back_off_token
from dgemma_engine.tokenization.tokenizer import Spelling, Tokenizer
from tokenizers import pre_tokenizers

from tests.gguf_files import write_gguf

MERGES = ["Ċ Ġ", "ĊĠ Ġ", "ĊĠĠ Ġ", "ĊĠĠĠ Ġ", "Ġ Ġ", "r e", "Ġ re", "Ã ©"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    tokens = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] + [1] * (len(tokens) - 1),
        "tokenizer.ggml.merges": MERGES,
    }
    path: Path = tmp_path_factory.mktemp("gguf") / "t.gguf"
    return read_tokenizer(GgufFile(write_gguf(path, metadata, {})))


@pytest.mark.parametrize(
    ("prefix", "begun"),
    [
        ("if n:\n    ", "\n    "),
        ("if n:\n   ", "\n   "),
        ("return", "n"),
        ("x re", " re"),
        ("caf\u00e9", "\u00e9"),
        # Two tokens make one character, so neither has text of its own.
        ("\u6f22", ""),
        ("", ""),
        ("\ud800", ""),
        ("<end>", ">"),
    ],
)
def test_last_token_of_the_prefix_opens_the_middle(tokenizer: Tokenizer, prefix: str, begun: str) -> None:
    boundary = back_off_token(prefix, "suffix", tokenizer)
    assert (boundary.prefix + boundary.opening, boundary.opening) == (prefix, begun)
    assert (boundary.closing, boundary.suffix) == ("", "suffix")


def texts(tokenizer: Tokenizer, start: HealedStart, *written: str) -> set[str] | None:
    names = tokenizer.token_texts()
    allowed = start.allowed([names.index(text) for text in written])
    return None if allowed is None else {names[token_id] or "" for token_id in allowed}


def test_any_spelling_of_the_beginning_is_allowed(tokenizer: Tokenizer) -> None:
    """A word may be one token or several."""
    start = HealedStart(" re", Spelling(tokenizer))
    assert texts(tokenizer, start) == {" ", " re"}
    assert texts(tokenizer, start, " ") == {"r", "re"}
    assert texts(tokenizer, start, " ", "r") == {"e"}
    assert texts(tokenizer, start, " re") is None
    assert texts(tokenizer, start, " ", "re") is None


def test_indentation_is_whole_or_leaves_one_blank_to_the_word(tokenizer: Tokenizer) -> None:
    """A model may prefer a more common indentation than the given one, which the middle must not begin with."""
    start = HealedStart("\n    ", Spelling(tokenizer))
    assert texts(tokenizer, start) == {"\n   ", "\n    "}
    assert texts(tokenizer, start, "\n   ") == {" ", "  ", " re"}
    assert texts(tokenizer, start, "\n    ") is None
    assert texts(tokenizer, start, "\n   ", " re") is None


def test_empty_beginning_allows_everything(tokenizer: Tokenizer) -> None:
    assert HealedStart("", Spelling(tokenizer)).allowed([]) is None


@pytest.mark.parametrize("opening", ["", "\n    "])
def test_barred_tokens_may_not_come_directly_after_the_beginning(tokenizer: Tokenizer, opening: str) -> None:
    barred = {" re", "\n"}
    ids = frozenset(tokenizer.token_texts().index(text) for text in barred)
    start = HealedStart(opening, Spelling(tokenizer), ids)
    written = [opening] if opening else []
    all_texts = {text for text in tokenizer.token_texts() if text}
    assert texts(tokenizer, start, *written) == all_texts - barred
    assert texts(tokenizer, start, *written, " ") is None
