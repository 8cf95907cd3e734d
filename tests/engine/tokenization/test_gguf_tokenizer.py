"""A tokenizer from GGUF metadata: exact in both directions, and no text becomes a special token."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.errors import CheckpointError
from dgemma_engine.tokenization.gguf_tokenizer import _missing_bytes, read_tokenizer
from dgemma_engine.tokenization.tokenizer import Tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, pre_tokenizers
from tokenizers.models import BPE

from tests.gguf_files import write_gguf

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<tool>", "<unused>"]
MERGES = ["Ġ Ġ", "ĠĠ ĠĠ", "Ċ ĠĠĠĠ", "d e", "de f", "1 2", "Ġ r", "Ġr e", "i n", "Ã ©"]


def metadata(**changed: Any) -> dict[str, Any]:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*SPECIAL, *alphabet, *(merge.replace(" ", "") for merge in MERGES)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, 4, 5] + [1] * (len(tokens) - 4),
        "tokenizer.ggml.merges": MERGES,
    } | {f"tokenizer.ggml.{key}": value for key, value in changed.items()}


# Qwen2 keeps punctuation and the line breaks after it together, but not digits or indentation.
QWEN2_MERGES = [*MERGES, ") :", "): Ċ", "): č", "):č Ċ", "Ċ Ċ", "č Ċ", "' s", "x y", "Ġ x", "Ġ =", "( x"]
QWEN2_NAMES = ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|endoftext|>"]


def qwen2_metadata() -> dict[str, Any]:
    """Metadata as converters write them: byte tokens first, then added ones, some of type user-defined or unused."""
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in QWEN2_MERGES)]
    names = [*QWEN2_NAMES, "[PAD271]"]
    return {"pre": "qwen2", "tokens": [*tokens, *names], "merges": QWEN2_MERGES} | {
        "token_type": [1] * len(tokens) + [4, 4, 4, 3, 5]
    }


def read(folder: Path, **changed: Any) -> Tokenizer:
    return read_tokenizer(GgufFile(write_gguf(folder / "t.gguf", metadata(**changed), {})))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return read(tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return read(tmp_path_factory.mktemp("qwen2"), **qwen2_metadata())


@pytest.fixture(scope="module")
def original_qwen2() -> Any:
    """The tokenizer of `transformers`, which normalises text to NFC first."""
    from transformers import Qwen2Tokenizer

    vocab = {token: token_id for token_id, token in enumerate(qwen2_metadata()["tokens"])}
    return Qwen2Tokenizer(vocab=vocab, merges=[tuple(merge.split(" ")) for merge in QWEN2_MERGES])  # pyright: ignore[reportArgumentType]


def test_splits_as_the_original_tokenizer_does(tokenizer: Tokenizer) -> None:
    """The model's own `tokenizer.json`: digits one by one, then GPT-2's splitting into bytes."""
    tokens: list[str] = metadata()["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in MERGES]
    original = Backend(BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))  # pyright: ignore[reportArgumentType]
    original.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    original.decoder = decoders.ByteLevel()
    text = "def f12(x):\n        return 'é' + x  # 12 in\r\n"
    assert tokenizer.encode(text) == original.encode(text).ids
    texts = tokenizer.token_texts()
    assert "12" not in [texts[token_id] for token_id in tokenizer.encode(text)]
    assert "\n    " in texts


def test_keeps_digits_together_if_the_file_does(tmp_path: Path) -> None:
    tokenizer = read(tmp_path, pre="gpt-2")
    assert len(tokenizer.encode("12")) == 1


CODE = [
    "def f12(xy):\n        return 'é' + xy  # 12 in\n", "if (x):\r\n\tx = 1234567\r\n\r\n", "it's 'S IT'S we'll",
    "\u4e2d\u6587x\u5b57\uff1a\u3000\ud55c\uae00", "(x):\n\n    y", "a  b   \n  \n\t c ", "):\n):\r\n",
    "x\u2028y\x0b1\u0663\u2167",
]  # fmt: skip


@pytest.mark.parametrize("text", CODE)
def test_qwen2_splits_as_transformers_does(qwen2: Tokenizer, original_qwen2: Any, text: str) -> None:
    assert qwen2.encode(text) == original_qwen2.encode(text)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.sampled_from([*"dfx1() :='", "\r", "\n", "12", "    ", "\u4e2d"])
        | st.text(st.characters(exclude_categories=["Cs"]))
    ).map(lambda parts: unicodedata.normalize("NFC", "".join(parts)))
)
def test_qwen2_splits_any_text_as_transformers_does(qwen2: Tokenizer, original_qwen2: Any, text: str) -> None:
    assert qwen2.encode(text) == original_qwen2.encode(text)


def test_qwen2_keeps_punctuation_and_line_breaks_together_but_no_digits(qwen2: Tokenizer) -> None:
    texts = qwen2.token_texts()
    pieces = ["(x", "):\r\n", "  ", " ", " ", "1", "2", "):\n", "\n\n"]
    assert [texts[token_id] for token_id in qwen2.encode("".join(pieces))] == pieces


def test_qwen2_reads_no_special_token_in_text_and_does_not_normalise(qwen2: Tokenizer, original_qwen2: Any) -> None:
    """The original tokenizer does both."""
    accent = "e\u0301"
    assert qwen2.decode(qwen2.encode(accent)) == accent
    assert original_qwen2.encode(accent) == original_qwen2.encode("\u00e9") != qwen2.encode(accent)
    first = len(qwen2_metadata()["tokens"]) - 5
    assert qwen2.special_ids == tuple(range(first, first + 5))
    for name in (*QWEN2_NAMES, "".join(QWEN2_NAMES), "[PAD271]"):
        assert qwen2.decode(qwen2.encode(name)) == name
        assert not set(qwen2.encode(name)) & set(qwen2.special_ids)
    assert original_qwen2.encode("<|endoftext|>") == [first + 3]


@pytest.mark.parametrize("splitting", ["smollm", "qwen2"])
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=st.lists(
        st.sampled_from([*SPECIAL, *QWEN2_NAMES, "de", "f", "é", "1", "2", " ", "\n", "\r", "):", "\u0301", "e"])
        | st.text()
    ).map("".join)
)
def test_round_trip_is_exact(tokenizer: Tokenizer, qwen2: Tokenizer, splitting: str, text: str) -> None:
    tokenizer = qwen2 if splitting == "qwen2" else tokenizer
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    assert not set(ids) & set(tokenizer.special_ids)


def test_characters_without_tokens_are_read_as_one_replacement(tmp_path: Path) -> None:
    """The bytes that SmolLM2 lacks, in GPT-2's letters."""
    lacking = {"\u0104", "\u0113", "ñ", "ò", "ÿ", "À"}
    good = metadata()
    tokens = [token for token in good["tokenizer.ggml.tokens"] if token not in lacking]
    tokenizer = read(tmp_path, tokens=tokens, token_type=[3, 3, 4, 5] + [1] * (len(tokens) - 4))
    text = "a\x04b\x03\x13\U00040000\U000bffff\U000c0000\U0001f600\U0003ffffñÿ"
    expected = "a\ufffdb\x03\ufffd\ufffd\ufffd\U000c0000\U0001f600\U0003ffffñÿ"
    assert tokenizer.decode(tokenizer.encode(text)) == expected


def test_byte_alphabet_equals_that_of_the_library() -> None:
    assert not _missing_bytes(dict.fromkeys(pre_tokenizers.ByteLevel.alphabet(), 0))
    assert len(_missing_bytes({})) == 256


def test_every_token_that_is_not_normal_is_special(tokenizer: Tokenizer) -> None:
    assert tokenizer.special_ids == (0, 1, 2, 3)
    assert tokenizer.token_texts()[:4] == [None] * 4
    assert tokenizer.decode([0, *tokenizer.encode("a"), 2]) == "a"
    assert tokenizer.vocab_size == 4 + 256 + len(MERGES)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"model": "llama"},
            "its tokenizer is 'llama' with the splitting 'smollm', only 'gemma4', and 'gpt2' with 'smollm'",
        ),
        ({"pre": "tekken"}, "with the splitting 'tekken'"),
        ({"tokens": ["a", "a"]}, "2 tokens, 1 of them different, with 270 types"),
        ({"token_type": [1, 2]}, "with 2 types"),
        ({"tokens": ["a", "b"], "token_type": [1, 1]}, "no token for 207 bytes that ordinary texts"),
        ({"merges": ["d zz"]}, "merges that do not fit its tokens"),
        ({"merges": ["d"]}, "merges that do not fit its tokens"),
    ],
)
def test_bad_tokenizer_is_reported_in_one_sentence(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path, **changed)


def test_file_without_a_tokenizer_is_reported_in_one_sentence(tmp_path: Path) -> None:
    file = GgufFile(write_gguf(tmp_path / "t.gguf", {"general.architecture": "llama"}, {}))
    with pytest.raises(CheckpointError, match=r"lacks the key tokenizer\.ggml\.model"):
        read_tokenizer(file)
