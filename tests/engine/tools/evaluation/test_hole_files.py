from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from dgemma_engine.errors import EngineUnavailable, FormatError, WrongUsage
from dgemma_engine.protocol.messages import Extent, Snippet
from dgemma_engine.tools.evaluation.holes.hole_files import read_tasks, to_record
from dgemma_engine.tools.evaluation.holes.task import UnitTest
from pyarrow import parquet

from tests.engine.tools.evaluation.conftest import HUMAN_EVAL, OWN, SANTA_CODER

WriteRows = Callable[..., Path]


def without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


def test_own_rows_are_read_as_they_are_written(write_rows: WriteRows) -> None:
    snippets = [{"path": "b.py", "text": "y = 2\n"}]
    first, second = read_tasks(write_rows(OWN, OWN | {"task_id": "2", "snippets": snippets}))
    assert to_record(first) == OWN
    assert second.snippets == (Snippet(path="b.py", text="y = 2\n"),)
    assert json.loads(json.dumps(to_record(second)))["snippets"] == snippets
    assert first.filled(first.middle) == "x = [1, 2]\n"


def test_human_eval_infilling_comes_with_its_test(write_rows: WriteRows) -> None:
    (task,) = read_tasks(write_rows(HUMAN_EVAL))
    assert (task.kind, task.language) == ("SingleLineInfilling", "python")
    assert task.test == UnitTest(code=HUMAN_EVAL["test"], entry_point="double")


def test_line_break_that_ends_a_middle_moves_to_the_suffix(write_rows: WriteRows) -> None:
    (task,) = read_tasks(write_rows(HUMAN_EVAL))
    assert (task.middle, task.suffix) == ("    y = x + x", "\n    return y\n")
    assert task.extent is Extent.LINE
    assert task.filled(task.middle) == "def double(x):\n    y = x + x\n    return y\n"
    (blank,) = read_tasks(write_rows(OWN | {"middle": "\n"}))
    assert (blank.middle, blank.suffix) == ("\n", "\n")
    (block,) = read_tasks(write_rows(OWN | {"middle": "[\r\n]\r\n"}))
    assert (block.middle, block.suffix, block.extent) == ("[\r\n]", "\r\n\n", Extent.BLOCK)


def test_santa_coder_names_recur_and_ids_do_not(write_rows: WriteRows) -> None:
    first, second = read_tasks(write_rows(SANTA_CODER, SANTA_CODER | {"language": "js", "canonical_solution": "x"}))
    assert (first.task_id, first.kind, first.language) == ("py/HumanEval_0_double/1", "py", "python")
    assert (second.task_id, second.kind, second.language) == ("js/HumanEval_0_double/2", "js", "javascript")
    assert first.test is None


@pytest.mark.parametrize("row", [OWN, HUMAN_EVAL, SANTA_CODER])
def test_all_containers_give_the_same_tasks(row: dict[str, Any], write_rows: WriteRows, tmp_path: Path) -> None:
    plain = write_rows(row)
    packed = tmp_path / "holes.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    columns = tmp_path / "holes.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([row]), columns)
    assert read_tasks(plain) == read_tasks(packed) == read_tasks(columns)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        *((OWN, name) for name in OWN),
        *((HUMAN_EVAL, name) for name in HUMAN_EVAL),
        *((SANTA_CODER, name) for name in SANTA_CODER if name != "tests"),
    ],
)
def test_a_missing_field_is_named_with_file_and_line(row: dict[str, Any], name: str, write_rows: WriteRows) -> None:
    with pytest.raises(FormatError, match=rf"holes\.jsonl:2: field `{name}` is missing .* add it"):
        read_tasks(write_rows(row, without(row, name)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"holes\.jsonl: holds no hole; make some with: dgemma-engine holes"),
        (b"\n\n", "holds no hole"),
        (b"[1]\n", r"holes\.jsonl:1: must be a JSON object, got list"),
        (b'{"task_id": \n', r"holes\.jsonl:1: is no JSON"),
        (b"[" * 100_000 + b"\n", r"holes\.jsonl:1: is no JSON"),
        (b'\n{"task_id": "caf\xe9"}\n', r"holes\.jsonl:2: is not UTF-8 .* convert the file"),
        (b'{"a": 1}\n', r"holes\.jsonl:1: is no hole \(its fields: a\); give task_id"),
        (b'{"middle": "x", "task_id": 3}\n', r"holes\.jsonl:1: field `task_id` must be text, got int"),
        (json.dumps(OWN | {"snippets": "x"}).encode(), "field `snippets` must be a list of objects"),
        (json.dumps(OWN | {"snippets": [{"path": "x"}]}).encode(), "field `text` is missing"),
        (json.dumps(OWN).encode() + b"\n" + json.dumps(OWN).encode(), r":2: task_id .* stands in the file twice"),
    ],
)
def test_a_broken_file_is_named_with_line_and_remedy(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "holes.jsonl"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_tasks(path)


def test_unreadable_gzip_parquet_and_missing_files_are_reported(tmp_path: Path) -> None:
    for name, message in (("a.gz", "is not a complete gzip file"), ("a.parquet", "cannot be read as Parquet")):
        (tmp_path / name).write_bytes(b"plain text, long enough to be anything")
        with pytest.raises(FormatError, match=message):
            read_tasks(tmp_path / name)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(json.dumps(OWN).encode())[:-9])
    with pytest.raises(FormatError, match="is not a complete gzip file"):
        read_tasks(tmp_path / "cut.gz")
    with pytest.raises(FormatError, match=r"cannot be read .*; name another file"):
        read_tasks(tmp_path)
    for name in ("none.jsonl", "none.jsonl.gz", "none.parquet"):
        with pytest.raises(WrongUsage, match=f"{name}: no such file; name another file"):
            read_tasks(tmp_path / name)


def test_parquet_without_pyarrow_names_the_package_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", missing)
    with pytest.raises(EngineUnavailable, match=r"pip install 'dgemma-lsp\[eval\]'"):
        read_tasks(tmp_path / "holes.parquet")
