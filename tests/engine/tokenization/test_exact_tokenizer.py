"""Tokenizers of model folders change no text: Unicode normal forms, added tokens, folders without tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.errors import CheckpointError
from dgemma_engine.tokenization.exact_tokenizer import read_exact_tokenizer
from dgemma_engine.tokenization.tokenizer import Tokenizer

from tests.masked_checkpoints import ADDED, MASK, qwen_tokenizer, write_vocabulary

NAMES = list(ADDED.values())
TEXTS = [
    "def f(x):\n    return x  # done\n", "e\u0301 \u00e9 \u1e9b\u0323", "\ud55c\u1112\u1161\u11ab", "a\r\n\tb \n\n  ",
    "12345 1.5e3", "it's we'll", "\U0001f469\u200d\U0001f4bb", "\u2126 \u03a9 \ufb01", *NAMES, "".join(NAMES),
    f"x = '{NAMES[2]}'{NAMES[3]}\n",
]  # fmt: skip


ONE = {"vocab.json": '{"a": 0}', "merges.txt": ""}


@pytest.fixture(params=["tokenizer.json", "vocab.json"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "tokenizer.json":
        qwen_tokenizer(ADDED).save(str(tmp_path / "tokenizer.json"))
    else:
        write_vocabulary(tmp_path, ADDED)
    return tmp_path


def change(folder: Path, **changed: Any) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_and_holds_no_added_token(folder: Path, text: str) -> None:
    tokenizer = read_exact_tokenizer(folder, vocab_size=288)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & set(tokenizer.special_ids)


def test_every_added_token_and_every_row_without_a_token_is_special(folder: Path) -> None:
    assert read_exact_tokenizer(folder, vocab_size=288).special_ids == tuple(range(257, 288))
    assert read_exact_tokenizer(folder, vocab_size=261).special_ids == (257, 258, 259, MASK)


def test_both_forms_of_the_same_tokenizer_agree(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        path.mkdir()
    qwen_tokenizer(ADDED).save(str(one / "tokenizer.json"))
    write_vocabulary(other, ADDED)
    tokenizers = [read_exact_tokenizer(path, vocab_size=288) for path in (one, other)]
    for text in TEXTS:
        assert tokenizers[0].encode(text) == tokenizers[1].encode(text)


def test_plain_tokenizer_changes_text(tmp_path: Path) -> None:
    qwen_tokenizer(ADDED).save(str(tmp_path / "tokenizer.json"))
    plain = Tokenizer.load(tmp_path)
    assert plain.decode(plain.encode("e\u0301")) == "\u00e9"
    assert plain.encode("<|fim_prefix|>") == [259]


def test_white_space_that_is_an_added_token_is_text(tmp_path: Path) -> None:
    backend = qwen_tokenizer(ADDED)
    backend.add_tokens(["        "])
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = read_exact_tokenizer(tmp_path, vocab_size=288)
    assert tokenizer.decode(tokenizer.encode("if x:\n        y")) == "if x:\n        y"
    assert 261 not in tokenizer.special_ids


def test_truncation_and_padding_of_the_training_are_dropped(tmp_path: Path) -> None:
    backend = qwen_tokenizer(ADDED)
    backend.enable_truncation(4)
    backend.enable_padding(length=64)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert len(read_exact_tokenizer(tmp_path, vocab_size=288).encode("x = 1 + 2 + 3")) == 13


@pytest.mark.parametrize(
    ("normalizer", "kept"),
    [
        ({"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]}, "a e\u0301"),
        ({"type": "Sequence", "normalizers": [{"type": "NFC"}]}, "A e\u0301"),
        ({"type": "NFD"}, "A e\u0301"),
    ],
)
def test_other_steps_of_a_normaliser_are_kept(tmp_path: Path, normalizer: dict[str, Any], kept: str) -> None:
    qwen_tokenizer(ADDED).save(str(tmp_path / "tokenizer.json"))
    change(tmp_path, normalizer=normalizer)
    tokenizer = read_exact_tokenizer(tmp_path, vocab_size=288)
    assert tokenizer.decode(tokenizer.encode("A e\u0301")) == kept


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no tokenizer.json and no vocab.json; download the whole model folder again"),
        ({"vocab.json": "{}"}, "has no tokenizer.json and no merges.txt"),
        ({"vocab.json": "[", "merges.txt": ""}, "vocab.json and merges.txt are damaged"),
        ({"tokenizer.json": "["}, "tokenizer.json: cannot be read"),
        ({"tokenizer.json": "[]"}, "tokenizer.json: must hold a JSON object"),
        ({"tokenizer.json": "{}"}, "tokenizer.json: damaged"),
        (ONE | {"added_tokens.json": '{"<M>": 7}'}, "its added token <M> has the id 7 where 1 is next"),
        (ONE | {"added_tokens.json": '{"<M>": []}'}, "an added token has the id []"),
    ],
)
def test_files_that_cannot_be_used_are_reported_in_one_sentence(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError) as caught:
        read_exact_tokenizer(tmp_path, vocab_size=288)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tokenizer_of_a_larger_model_is_reported_in_one_sentence(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has 261 tokens, config\.json a vocab_size of 260"):
        read_exact_tokenizer(folder, vocab_size=260)
