"""`dgemma-engine compare` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dgemma_engine.cli import main


def results(path: Path, *exact: bool, first: int = 0) -> str:
    rows = [{"task_id": str(first + i), "exact": right, "similarity": float(right)} for i, right in enumerate(exact)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_compare_reports_the_paired_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = results(tmp_path / "a.jsonl", *([True, False] * 100))
    second = results(tmp_path / "b.jsonl", *([True, False] * 80), *([True] * 40))
    assert main(["compare", first, second]) == 0
    output = capsys.readouterr()
    assert output.out.startswith("exact_match      0.5000 -> 0.6000, difference +0.1000 [+0.0")
    result = json.loads(output.out.splitlines()[-1])
    assert (result["n"], result["left_out"], result["first"], result["second"]) == (200, 0, "a.jsonl", "b.jsonl")
    exact = result["exact_match"]
    assert exact["difference"] == pytest.approx(0.1)
    assert 0 < exact["difference_ci"][0] < 0.1 < exact["difference_ci"][1] < 0.2
    assert exact["ratio"] == pytest.approx(1.2)
    assert output.err == ""


def test_compare_reports_holes_of_one_file_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = results(tmp_path / "a.jsonl", True, True, False)
    second = results(tmp_path / "b.jsonl", False, True, first=1)
    assert main(["compare", first, second]) == 0
    output = capsys.readouterr()
    assert "1 results are in one file only" in output.err
    assert json.loads(output.out.splitlines()[-1])["n"] == 2
    assert main(["compare", first, results(tmp_path / "c.jsonl", True, first=9)]) == 1
    assert "have no hole in common" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no result"),
        ('{"task_id": "1", "exact": true}\n', ":1: field `similarity` is missing"),
        ('{"task_id": "1", "exact": "yes", "similarity": 1}\n', ":1: field `exact` must be a number, got str"),
        ('{"task_id": "1", "exact": 1, "similarity": 1}\n' * 2, ":2: task_id '1' stands in the file twice"),
    ],
)
def test_compare_names_a_broken_line(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    assert main(["compare", str(path), str(path)]) == 1
    assert message in capsys.readouterr().err
