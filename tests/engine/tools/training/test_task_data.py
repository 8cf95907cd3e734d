"""Rows of a task as batches, and a model trained on them from random weights."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dgemma_engine.cli import main
from dgemma_engine.errors import TaskError
from dgemma_engine.tools.corpus import bpe
from dgemma_engine.tools.training.data.batches import Position
from dgemma_engine.tools.training.data.task_data import TaskData
from dgemma_engine.tools.training.train_config import TrainConfig

from tests.engine.tools.training.test_trainer import StepClock, _toml


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """Rows of two lengths, in which each given letter is followed by the same letter as free text."""
    draw, path = random.Random(0), tmp_path / "task.jsonl"
    lines = []
    for _ in range(200):
        letters = draw.choices("abcdefgh", k=draw.choice((4, 6)))
        parts = [{"given": "twice\n"}]
        for letter in letters:
            parts += [{"given": letter}, {"free": letter}]
        lines.append(json.dumps({"parts": parts}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def task_settings(settings: dict[str, Any]) -> dict[str, Any]:
    settings["model"] |= {"vocab_size": 272, "sliding_window": 40}
    settings["optimizer"] = {"matrix_lr": 0.03}
    return settings


def test_batches_hold_whole_canvases_of_one_length_and_learn_free_tokens(
    task: Path, task_settings: dict[str, Any]
) -> None:
    data = TaskData(task, TrainConfig.from_dict(task_settings))
    stream = data.stream("train", Position(), num_workers=0)
    batches = [batch for batch, _ in zip(stream, range(8), strict=False)]
    assert {batch.slot_BS.shape[1] for batch in batches} == {8, 12}
    for batch in batches:
        assert (batch.given_BS == (np.arange(batch.slot_BS.shape[1]) % 2 == 0)).all()
        assert (batch.slot_BS[:, ::2] == batch.slot_BS[:, 1::2]).all()
        assert ((batch.prompt_BP == bpe.MASK).sum(1) == batch.slot_BS.shape[1] // 2).all()
        assert batch.head_BH.shape[1] == 0
        ids_BT = np.concatenate((batch.prompt_BP, batch.slot_BS), axis=1)[:, 1:]
        assert sorted(ids_BT.ravel()[batch.causal_N]) == sorted(batch.slot_BS[~batch.given_BS])
    again = data.stream("train", stream.position, num_workers=0)
    assert (next(iter(stream)).slot_BS == next(iter(again)).slot_BS).all()


def test_model_trained_on_a_task_solves_more_of_it(
    task: Path, task_settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("time.monotonic", StepClock())
    (tmp_path / "c.toml").write_text(_toml(task_settings))
    command = ["train", str(tmp_path / "c.toml"), "--task", str(task), "--out", str(tmp_path / "run")]
    command += ["--threads", "1", "--device", "cpu"]
    fill = ["fill", "--task", str(task), "--model", str(tmp_path / "run" / "latest"), "--device", "cpu", "--limit", "6"]

    def figures() -> dict[str, Any]:
        capsys.readouterr()
        assert main(fill) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    assert main([*command, "--minutes", "0.1"]) == 0
    before = figures()
    assert main([*command, "--minutes", "7", "--resume"]) == 0
    after = figures()
    assert after["token_share"] > before["token_share"] + 0.3
    assert (
        "rows of `task.jsonl`; one row in ten was held out" in (tmp_path / "run" / "latest" / "README.md").read_text()
    )
    with task.open("a", encoding="utf-8") as file:
        file.write('\n{"parts": [{"free": "a"}]}\n')
    assert main([*command, "--minutes", "8", "--resume"]) == 1
    assert "different: data.task_sha256" in capsys.readouterr().err


def test_rows_that_cannot_be_trained_on_are_refused(task: Path, task_settings: dict[str, Any], tmp_path: Path) -> None:
    config = TrainConfig.from_dict(task_settings)
    lines = task.read_text().splitlines()
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join([*lines, '{"parts": [{"free": 3}]}']))
    with pytest.raises(TaskError, match=r"line 201 has free parts without text; a row to train on needs all"):
        TaskData(path, config)
    path.write_text("\n".join(lines[:50]))
    with pytest.raises(TaskError, match="holds 50 rows, at least 100 different ones are needed to train on"):
        TaskData(path, config)
    task_settings["format"] |= {"slot_sizes": [8], "suffix_head_tokens": 0}
    task_settings["model"]["canvas_length"] = 11
    with pytest.raises(TaskError, match=r"needs a canvas of 12 tokens, and the model has 11"):
        TaskData(task, TrainConfig.from_dict(task_settings))
