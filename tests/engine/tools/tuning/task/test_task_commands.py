"""`tune --task` and `fill` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dgemma_engine.cli import main
from dgemma_engine.tools.adaptation.task import canvas_trainer
from dgemma_engine.tools.tuning import tune_command

from tests.engine.tools.tuning.conftest import work_clock
from tests.engine.tools.tuning.task.conftest import CONFIG
from tests.llama_checkpoints import make_qwen2
from tests.test_machine_outputs import documented


@pytest.fixture(autouse=True)
def own_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle machine on mains power, no change of this process's priority, and a training of few steps."""
    monkeypatch.setattr(tune_command, "_start_clock", work_clock)
    monkeypatch.setattr(tune_command, "_work_clock", work_clock)
    monkeypatch.setattr(tune_command.os, "nice", lambda _by: 0)
    monkeypatch.setattr(canvas_trainer, "CanvasConfig", lambda seed: CONFIG)


def test_task_is_learnt_and_solved(
    marked_base: Path, task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tune = ["tune", "--task", str(task), "--out", str(tmp_path / "adapter"), "--model", str(marked_base)]
    assert main([*tune, "--device", "cpu", "--minutes", "6", "--json"]) == 0
    *progress, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(one.keys() == {"percent", "message"} for one in progress)
    assert documented("dgemma-engine tune --task --json") <= last.keys()
    assert last["installed"] and 0 == last["before"] < last["after"]
    fill = ["fill", "--task", str(task), "--model", str(marked_base), "--device", "cpu", "--limit", "3"]
    assert main([*fill, "--adapter", str(tmp_path / "adapter")]) == 0
    *texts, line = capsys.readouterr().out.splitlines()
    assert len(texts) == 3 and all(len(text) == 7 and text.endswith(".") for text in texts)
    figures = json.loads(line)
    assert documented("dgemma-engine fill") <= figures.keys()
    assert (figures["rows"], figures["judged"], figures["mode"]) == (3, 3, "adaptive")
    assert figures["solved"] == sum(text.endswith("qq.") for text in texts) > 0
    assert main([*fill, "--adapter", str(tmp_path / "adapter"), "--fixed", "--steps", "5", "--json"]) == 0
    *rows, figures = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["steps"] for row in rows] == [5, 5, 5] and {row["text"][:4] for row in rows} == {
        text[:4] for text in texts
    }
    assert figures["steps_mean"] == 5
    assert main([*fill, "--left-to-right"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps_mean"] == 2


def refused(code: int, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main([*arguments]) == code
    return capsys.readouterr().err.splitlines()[-1]


def test_arguments_that_do_not_belong_together_are_reported_in_one_sentence(
    task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert "name the folder of a repository, or a file of rows" in refused(2, capsys, "tune")
    assert "name the folder of a repository, or a file of rows" in refused(
        2, capsys, "tune", str(tmp_path), "--task", str(task), "--out", out
    )
    assert "--task FILE and --out DIR belong together" in refused(2, capsys, "tune", "--task", str(task))
    assert "--task FILE and --out DIR belong together" in refused(2, capsys, "tune", str(tmp_path), "--out", out)
    resume = ("tune", "--task", str(task), "--out", out, "--model", "tiny", "--resume")
    assert f"{out}: nothing to resume, no tuning was interrupted here; start without" in refused(1, capsys, *resume)
    assert "gone: is no file; name a file of task rows" in refused(2, capsys, "tune", "--task", "gone", "--out", out)


def test_models_and_tasks_that_cannot_be_used_are_reported_in_one_sentence(
    marked_base: Path, task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("--model", str(marked_base))
    tiny = refused(1, capsys, "tune", "--task", str(task), "--out", str(tmp_path / "a"), "--model", "tiny")
    assert "is no GGUF file of a Llama, and adapters are for those; choose --model small, or train a model" in tiny
    qwen2 = make_qwen2(tmp_path / "qwen2").gguf
    capsys.readouterr()
    error = refused(1, capsys, "tune", "--task", str(task), "--out", str(tmp_path / "a"), "--model", str(qwen2))
    assert "is no GGUF file of a Llama, and adapters are for those; choose --model small, or train a model" in error
    assert "gone: no such file; name a file of task rows" in refused(2, capsys, "fill", "--task", "gone", *model)
    fill = ("fill", "--task", str(task), *model, "--adapter", str(tmp_path / "none"))
    assert "none: is no folder; name the folder of a task's adapter" in refused(2, capsys, *fill)
    (tmp_path / "none").mkdir()
    assert "canvas.safetensors: cannot be read" in refused(1, capsys, *fill)
    taken = refused(1, capsys, "fill", "--task", str(task), "--model", "tiny", "--adapter", str(tmp_path / "none"))
    assert "takes no adapter; leave out --adapter" in taken
