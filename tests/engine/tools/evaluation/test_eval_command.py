"""`dgemma-engine eval` from the command line: table, last line, files, and one line for every fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.cli import main
from dgemma_engine.infill.options import Decode, InfillOptions
from dgemma_engine.protocol.messages import Extent

from tests.engine.tools.evaluation.conftest import HUMAN_EVAL, OWN, SANTA_CODER
from tests.engine.tools.evaluation.kernel import needs_confinement
from tests.engine.tools.evaluation.table_engine import TableEngine, install

WriteRows = Callable[..., Path]
KEYS = {
    "n", "exact_match", "exact_match_ci", "edit_similarity", "edit_similarity_ci", "parse_rate", "length_error_mean",
    "pass_at_1", "shown_share", "precision_shown", "forwards_mean", "steps_mean", "p50_ms", "p95_ms",
}  # fmt: skip
NO_HOLES = "none.jsonl: no such file; name another file"
MISSING_MODEL = "none: no such folder or GGUF file"
FACTS = {"command", "holes", "kinds", "model", "device", "recipe", "seed", "commit", "date", "cpu", "gpu"}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> TableEngine:
    engine = TableEngine({"x = ": "[1, 2]", "y = ": "nothing like it", "def double(x):\n": "    y = 2 * x"})
    install(engine, monkeypatch)
    return engine


@pytest.fixture
def holes(write_rows: WriteRows) -> Path:
    """Three holes of two kinds: one answered exactly, one wrongly, one not at all."""
    return write_rows(
        OWN, OWN | {"task_id": "2", "prefix": "y = "}, OWN | {"task_id": "3", "kind": "span", "prefix": "z = "}
    )


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_last_line_has_every_figure_and_its_provenance(
    engine: TableEngine, holes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(holes)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out[:-1]] == ["kind", "line", "span", "all"]
    result = json.loads(out[-1])
    assert result.keys() >= KEYS | FACTS
    assert all(figures.keys() == KEYS for figures in result["kinds"].values())
    assert (result["n"], result["kinds"]["line"]["n"], result["kinds"]["span"]["n"]) == (3, 2, 1)
    assert (result["exact_match"], result["shown_share"], result["precision_shown"]) == (0.3333, 0.6667, 0.5)
    assert (result["forwards_mean"], result["steps_mean"], result["pass_at_1"]) == (4.0, 3.0, None)
    assert (result["model"], result["device"], result["holes"]) == ("table", "cpu", "holes.jsonl")
    assert result["recipe"] == {
        "decode": "all", "length": "auto", "fill": True, "seeds": True, "forks": True, "silence": True,
        "deadline_ms": 60_000,
    }  # fmt: skip


def test_model_that_answers_in_place_of_the_default_is_named(
    engine: TableEngine,
    holes: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    notice = "the model small is not there yet, so `tiny` answers in its place; run: dgemma-engine pull small\n"
    assert main(["eval", str(holes)]) == 0
    assert notice in capsys.readouterr().err
    assert main(["eval", str(holes), "--model", "tiny"]) == 0
    assert notice not in capsys.readouterr().err


def test_options_reach_the_engine(engine: TableEngine, holes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left_out = ["--no-fill", "--no-seeds", "--no-forks", "--no-silence"]
    options = ["--decode", "ltr", "--length", "fixed:5", *left_out, "--seed", "3"]
    assert main(["eval", str(holes), *options, "--deadline-ms", "1500", "--device", "cpu"]) == 0
    context, recipe = engine.asked[0]
    expected = InfillOptions(
        decode=Decode.LEFT_TO_RIGHT, slot_tokens=5, fill=False, seeds=False, forks=False, silence=False
    )
    assert recipe == expected
    assert (context.seed, context.deadline_ms, context.extent) == (3, 1_500, Extent.LINE)
    result = last_line(capsys)
    assert (result["recipe"]["decode"], result["recipe"]["length"], result["seed"]) == ("ltr", "fixed:5", 3)


def test_each_answer_is_written_and_the_result_as_well(
    engine: TableEngine, holes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, published = tmp_path / "out.jsonl", tmp_path / "result.json"
    assert main(["eval", str(holes), "--out", str(out), "--json", str(published)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["task_id"], row["exact"], row["shown"], row["finish"]) for row in rows] == [
        (OWN["task_id"], True, True, "stable"), ("2", False, True, "stable"), ("3", False, False, "empty"),
    ]  # fmt: skip
    assert rows[0].keys() >= {"kind", "text", "similarity", "score", "ms", "forwards", "steps"}
    assert json.loads(published.read_text()) == last_line(capsys)
    assert published.read_text().startswith('{\n  "command": "eval"')


def test_an_interrupted_evaluation_keeps_its_answers(
    engine: TableEngine, holes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = engine.infill

    def infill(*arguments: Any, **options: Any) -> Any:
        if len(engine.asked) == 2:
            raise KeyboardInterrupt
        return asked(*arguments, **options)

    monkeypatch.setattr(engine, "infill", infill)
    assert main(["eval", str(holes), "--out", str(tmp_path / "out.jsonl")]) == 130
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


def test_limit_takes_holes_from_the_whole_file(
    engine: TableEngine, write_rows: WriteRows, capsys: pytest.CaptureFixture[str]
) -> None:
    holes = write_rows(*(OWN | {"task_id": str(number)} for number in range(10)))
    assert main(["eval", str(holes), "--limit", "3"]) == 0
    assert [context.document for context, _ in engine.asked] == ["0", "3", "6"]
    assert last_line(capsys)["n"] == 3


def test_copy_needs_no_model(
    write_rows: WriteRows, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(None, monkeypatch)
    holes = write_rows(SANTA_CODER, SANTA_CODER | {"prompt": "x + x\n"})
    assert main(["eval", str(holes), "--decode", "copy"]) == 0
    result = last_line(capsys)
    assert (result["exact_match"], result["model"], result["device"]) == (0.5, None, None)
    assert result["recipe"] == {"decode": "copy"}
    assert (result["forwards_mean"], result["p50_ms"], result["length_error_mean"]) == (None, None, None)


@needs_confinement
def test_execute_warns_and_counts_what_passes(
    engine: TableEngine, write_rows: WriteRows, capsys: pytest.CaptureFixture[str]
) -> None:
    fails = HUMAN_EVAL | {"task_id": "SingleLineInfilling/HumanEval/1/L0", "suffix": "    return z\n"}
    assert main(["eval", str(write_rows(HUMAN_EVAL, fails)), "--execute"]) == 0
    output = capsys.readouterr()
    assert "warning: --execute runs programs that a model wrote" in output.err
    result = json.loads(output.out.splitlines()[-1])
    # The answer passes the test, although it differs from the text that was cut out.
    assert (result["pass_at_1"], result["exact_match"], result["parse_rate"]) == (0.5, 0.0, 1.0)


def test_execute_is_off_by_default(
    engine: TableEngine, write_rows: WriteRows, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(write_rows(HUMAN_EVAL))]) == 0
    output = capsys.readouterr()
    assert "warning" not in output.err
    assert json.loads(output.out.splitlines()[-1])["pass_at_1"] is None


def test_execute_without_tests_is_reported(
    engine: TableEngine, holes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(holes), "--execute"]) == 1
    assert "none of the holes has a test" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{tmp}/none.jsonl"], NO_HOLES),
        (["{holes}", "--out", "{tmp}/none/out.jsonl"], "cannot be written (No such file or directory)"),
        (["{holes}", "--json", "{tmp}/none/x.json"], "cannot be written (No such file or directory)"),
        (["{holes}", "--out", "{holes}"], "would be overwritten"),
        (["{holes}", "--json", "{tmp}/hard.jsonl"], "is read, and would be overwritten"),
        (["{holes}", "--out", "{tmp}/same", "--json", "{tmp}/./same"], "is named for two outputs"),
        (["{holes}", "--out", "{tmp}/old.jsonl", "--model", "{tmp}/none"], MISSING_MODEL),
        (["{holes}", "--model", "{tmp}/none"], MISSING_MODEL),
    ],
)
def test_faults_are_reported_in_one_line(
    options: list[str],
    message: str,
    engine: TableEngine,
    holes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = holes.read_bytes()
    (tmp_path / "hard.jsonl").hardlink_to(holes)
    (tmp_path / "old.jsonl").write_text("old results")
    code = main(["eval", *(option.format(tmp=tmp_path, holes=holes) for option in options)])
    assert code == (2 if message in (NO_HOLES, MISSING_MODEL) else 1)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert holes.read_bytes() == before
    assert (tmp_path / "old.jsonl").read_text() == "old results"
    assert not engine.asked


@pytest.mark.parametrize(
    "options",
    [
        ["--length", "fixed:0"],
        ["--length", "golden"],
        ["--limit", "0"],
        ["--limit", "many"],
        ["--decode", "beam"],
        ["--deadline-ms", "0"],
        ["--deadline-ms", "600001"],
        ["--seed", "-1"],
        ["--device", "tpu"],
    ],
)
def test_wrong_usage_is_exit_code_two(options: list[str], holes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["eval", str(holes), *options])
    assert exit_info.value.code == 2
    assert options[1] in capsys.readouterr().err
