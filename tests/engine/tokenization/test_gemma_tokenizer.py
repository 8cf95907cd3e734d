"""Gemma 4's tokenizer from GGUF metadata: exact in both directions, with the tokens of the original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.errors import CheckpointError
from dgemma_engine.tokenization.gguf_tokenizer import read_tokenizer
from dgemma_engine.tokenization.tokenizer import Tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gguf_files import write_gguf

SPECIAL = ["<pad>", "<eos>", "<bos>", "<|turn>", "<unused0>", "<table>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LETTERS = [*map(chr, range(0x20, 0x7F)), "\n", "\t", "é", "\u2581"]
MERGES = [
    "\n \n", "\u2581 \u2581", "\u2581\u2581 \u2581\u2581", "d e", "de f", "\u2581 x", "t a", "ta b", "tab l", "tabl e",
    "< table", "<table >", "< 0", "<0 x", "<0x 4", "<0x4 1", "<0x41 >",
]  # fmt: skip
RUNS = ["\n\n", "\u2581\u2581", "\u2581\u2581\u2581\u2581"]


def metadata(**changed: Any) -> dict[str, Any]:
    merged = [merge.replace(" ", "") for merge in MERGES]
    others = [token for token in merged if token not in (*RUNS, *SPECIAL, *BYTES)]
    letters = [letter for letter in LETTERS if letter != " "]
    tokens = [*SPECIAL, *BYTES, *letters, *RUNS, *others]
    types = [3, 3, 3, 3, 5, 4, *[6] * 256, *[1] * len(letters), *[4] * len(RUNS), *[1] * len(others)]
    return {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": MERGES,
    } | {f"tokenizer.ggml.{key}": value for key, value in changed.items()}


def read(folder: Path, **changed: Any) -> Tokenizer:
    return read_tokenizer(GgufFile(write_gguf(folder / "t.gguf", metadata(**changed), {})))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return read(tmp_path_factory.mktemp("gguf"))


def names(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.name_of(token_id) for token_id in tokenizer.encode(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def x", ["def", " x"]),
        ("x\n\n    x", ["x", "\n\n", "    ", "x"]),
        ("\n\n\n", ["\n\n", "\n"]),
        ("é\u2581€", ["é", "<0xE2>", "<0x96>", "<0x81>", "<0xE2>", "<0x82>", "<0xAC>"]),
        ("<table>", ["<table", ">"]),
        ("<0x41>", ["<0x41", ">"]),
    ],
)
def test_tokens_follow_the_rules_of_the_format(text: str, expected: list[str], tokenizer: Tokenizer) -> None:
    """Merges stay within a line, characters without a token become bytes, and no text becomes a special token."""
    assert names(tokenizer, text) == expected


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.sampled_from([*SPECIAL, "<0x41>", "\u2581", "de", "f", "é", " ", "    ", "\n", "\r\n", "\u0301"]) | st.text()
    ).map("".join)
)
def test_round_trip_is_exact(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    assert not set(ids) & set(tokenizer.special_ids)


def test_special_tokens_are_those_without_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.special_ids == tuple(range(len(SPECIAL)))
    texts = tokenizer.token_texts()
    assert texts[: len(SPECIAL)] == [None] * len(SPECIAL)
    assert texts[len(SPECIAL) + 0x41] is None
    assert {"\n\n", "    ", " x", "def"} <= set(texts)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokens": ["a", "a"]}, "2 tokens, 1 of them different"),
        ({"tokens": ["a ", "a\u2581"], "token_type": [1, 1]}, r"tokens that differ in U\+2581 and spaces alone"),
        ({"tokens": BYTES[:200], "token_type": [6] * 200, "merges": ["a b"]}, "no token for 56 bytes"),
        ({"merges": ["d zz"]}, "merges that do not fit its tokens"),
    ],
)
def test_bad_tokenizer_is_reported_in_one_sentence(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path, **changed)
