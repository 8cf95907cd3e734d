"""Prompt and slot layout from token ids, and `infill.json` good and bad."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.errors import FormatError

TRAINED = InfillFormat(
    fill_token_id=7,
    more_token_id=8,
    prefix_token_id=5,
    suffix_token_id=6,
    slot_sizes=(4, 8, 16),
    prefix_tokens=3,
    suffix_tokens=2,
    suffix_head_tokens=1,
)


def test_prompt_keeps_the_prefix_tail_and_the_suffix() -> None:
    prompt = TRAINED.prompt_ids(prefix_ids=[21, 22, 23, 24], suffix_ids=[31, 32, 33], bos_token_id=2)
    assert prompt == [2, 6, 31, 32, 5, 22, 23, 24]


def test_untrained_prompt_is_the_prefix_alone() -> None:
    prompt = InfillFormat.untrained().prompt_ids(prefix_ids=[21, 22], suffix_ids=[31], bos_token_id=2)
    assert prompt == [2, 21, 22]


def test_first_token_of_a_model_trained_without_one_stands_in_an_empty_prompt_only() -> None:
    form = replace(InfillFormat.untrained(), begins_with_bos=False)
    assert form.prompt_ids(prefix_ids=[21], suffix_ids=[31], bos_token_id=2) == [21]
    assert form.prompt_ids(prefix_ids=[], suffix_ids=[31], bos_token_id=2, snippet_ids=[41]) == [41]
    assert form.prompt_ids(prefix_ids=[], suffix_ids=[31], bos_token_id=2) == [2]


SUFFIX_LAST = replace(TRAINED, suffix_last=True, middle_token_id=9, begins_with_bos=False)


def test_suffix_may_stand_between_prefix_and_middle() -> None:
    ids = {"prefix_ids": [21, 22, 23, 24], "suffix_ids": [31, 32, 33], "bos_token_id": 2}
    assert SUFFIX_LAST.prompt_ids(**ids, snippet_ids=[41]) == [41, 5, 22, 23, 24, 6, 31, 32, 9]
    assert replace(SUFFIX_LAST, suffix_last=False).prompt_ids(**ids) == [6, 31, 32, 5, 22, 23, 24, 9]


@pytest.mark.parametrize(("wanted", "size"), [(1, 4), (4, 4), (5, 8), (16, 16), (17, 16)])
def test_slot_size_is_the_smallest_that_holds(wanted: int, size: int) -> None:
    assert TRAINED.slot_size(wanted) == size


@pytest.mark.parametrize("form", [TRAINED, replace(SUFFIX_LAST, judges_text=True, healing="none")])
def test_save_and_load(tmp_path: Path, form: InfillFormat) -> None:
    form.save(tmp_path)
    assert InfillFormat.load(tmp_path) == form


def test_folder_without_the_file_was_not_trained_to_fill(tmp_path: Path) -> None:
    assert InfillFormat.load(tmp_path).fill_token_id is None


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"slot_sizes": [4], "surprise": 1}', b"\xff", b"[" * 10**5])
def test_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "infill.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"infill\.json: cannot be read"):
        InfillFormat.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slot_sizes": ()}, "slot_sizes="),
        ({"slot_sizes": (8, 4)}, "ascending"),
        ({"slot_sizes": (0, 4)}, "slot_sizes=0 must be a whole number from 1"),
        ({"prefix_tokens": 0}, "prefix_tokens=0"),
        ({"suffix_tokens": -1}, "suffix_tokens=-1"),
        ({"suffix_tokens": 1.5}, "suffix_tokens=1.5 must be a whole number from 0"),
        ({"snippet_tokens": 10**12}, "snippet_tokens=1000000000000 must be a whole number"),
        ({"slot_sizes": (4, "8")}, "ascending whole numbers"),
        ({"slot_sizes": (4, 10**12)}, "slot_sizes=1000000000000"),
        ({"fill_token_id": "7"}, "fill_token_id='7'"),
        ({"more_token_id": -1}, "more_token_id=-1"),
        ({"healing": "line"}, "healing='line' must be 'word', 'token' or 'none'"),
        ({"suffix_last": True}, "suffix_last=True needs suffix_token_id and middle_token_id"),
        (
            {"suffix_last": True, "middle_token_id": 9, "suffix_token_id": None},
            "suffix_last=True needs suffix_token_id and middle_token_id",
        ),
        ({"suffix_last": 1}, "suffix_last=1 must be true or false"),
        ({"judges_text": "true"}, "judges_text='true' must be true or false"),
        ({"begins_with_bos": None}, "begins_with_bos=None must be true or false"),
    ],
)
def test_bad_value_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        replace(TRAINED, **changes)  # type: ignore[arg-type]


def test_bad_value_of_a_file_is_named_with_the_file(tmp_path: Path) -> None:
    TRAINED.save(tmp_path)
    file = tmp_path / "infill.json"
    file.write_text(file.read_text().replace('"prefix_tokens": 3', '"prefix_tokens": 0'))
    with pytest.raises(FormatError, match=r"infill\.json: prefix_tokens=0 must be .*; restore it from"):
        InfillFormat.load(tmp_path)


def test_ids_must_be_of_the_vocabulary() -> None:
    TRAINED.require_vocabulary(9)
    with pytest.raises(FormatError, match="more_token_id=8 must be less than the model's vocabulary of 8 tokens"):
        TRAINED.require_vocabulary(8)
