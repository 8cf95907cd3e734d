from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from dgemma_engine.errors import CannotResume, Diverged, Interrupted, TaskError, TrainingError
from dgemma_engine.tools.adaptation.config import OptimizerConfig
from dgemma_engine.tools.adaptation.task.canvas_base import CanvasBase
from dgemma_engine.tools.adaptation.task.canvas_batch import CanvasBatch
from dgemma_engine.tools.tasks.task_model import TaskModel

from tests.engine.tools.tuning.conftest import work_clock
from tests.engine.tools.tuning.task.conftest import CONFIG, MakeTaskTuner


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return tmp_path / "adapter" / "canvas.safetensors"


def test_task_is_learnt_and_its_adapter_installed(
    make_task_tuner: MakeTaskTuner, adapter: Path, marked_base: Path
) -> None:
    lines = list[tuple[int, str]]()
    result = make_task_tuner(report=lambda percent, line: lines.append((percent, line))).run(resume=False)
    found = result.comparison
    assert result.installed == adapter and [path.name for path in adapter.parent.iterdir()] == [adapter.name]
    assert found.solved_before == 0 and found.solved_after > found.rows / 2 >= 4
    assert result.num_train + result.num_held_out == 150
    percents = [percent for percent, _ in lines]
    assert percents == sorted(percents) and percents[0] == 0 and percents[-1] >= 82
    model = TaskModel.load(marked_base, torch.device("cpu"), adapter.parent)
    assert model.sampler.noise.suppressed_ids == (15,)
    assert json.loads(json.dumps(result.to_json()))["after"] > 0.5
    assert result.sentence.startswith(f"installed: of {found.rows} held-out rows 0 were wholly right before and")


def test_nothing_is_installed_when_nothing_was_learnt(make_task_tuner: MakeTaskTuner, adapter: Path) -> None:
    adapter.parent.mkdir()
    adapter.write_bytes(b"an older one")
    still = replace(CONFIG, optimizer=OptimizerConfig(rate=1e-9, average_decay=0.5))
    result = make_task_tuner(config=still).run(resume=False)
    assert result.installed is None and "not better beyond chance" in result.sentence
    assert adapter.read_bytes() == b"an older one"
    assert [path.name for path in adapter.parent.iterdir()] == [adapter.name]


def test_interrupted_tuning_resumes_where_it_stopped(make_task_tuner: MakeTaskTuner, adapter: Path) -> None:
    asked = 0

    def is_interrupted() -> bool:
        nonlocal asked
        asked += 1
        return asked > 40

    with pytest.raises(Interrupted, match="stopped, nothing was installed: interrupted; go on with --resume"):
        make_task_tuner(clock=work_clock(is_interrupted=is_interrupted)).run(resume=False)
    assert not adapter.exists()
    before = json.loads((adapter.parent / "training" / "before.json").read_text())
    steps = torch.load(adapter.parent / "training" / "state.pt", weights_only=True)["progress"]["step"]
    assert steps > 0 and len(before["results"]) >= 8
    lines = list[str]()
    result = make_task_tuner(report=lambda _percent, line: lines.append(line)).run(resume=True)
    assert result.installed is not None and result.steps > steps
    assert not [line for line in lines if line.startswith("measuring the model as it is")]


def test_resuming_with_other_rows_is_refused(make_task_tuner: MakeTaskTuner, task: Path, adapter: Path) -> None:
    stopped = work_clock(is_interrupted=lambda: (adapter.parent / "training" / "before.json").exists())
    with pytest.raises(Interrupted):
        make_task_tuner(clock=stopped).run(resume=False)
    task.write_text(task.read_text() + '\n{"parts": [{"free": "new"}]}')
    with pytest.raises(CannotResume, match="the model or the rows have changed since the training began; start again"):
        make_task_tuner().run(resume=True)


def test_a_loss_that_is_no_number_installs_nothing(
    make_task_tuner: MakeTaskTuner, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CanvasBase, "backward", lambda _base, _batch: float("nan"))
    with pytest.raises(Diverged, match="the training failed, nothing was installed: the loss is nan at step 0; start"):
        make_task_tuner().run(resume=False)
    assert not adapter.parent.exists()


def test_rows_that_cannot_be_learnt_from_are_refused_before_anything_starts(
    make_task_tuner: MakeTaskTuner, tmp_path: Path, adapter: Path
) -> None:
    path = tmp_path / "bad.jsonl"
    row = '{"parts": [{"given": "%d"}, {"free": "q"}]}'
    path.write_text("\n".join(row % number for number in range(30)))
    with pytest.raises(TaskError, match=r"holds 30 rows, \d+ of them held out; at least 100 different ones with 8"):
        make_task_tuner(task=path).run(resume=False)
    path.write_text('{"parts": [{"free": 3}]}')
    with pytest.raises(TaskError, match="line 1 has free parts without text; a row to learn from needs all of its"):
        make_task_tuner(task=path).run(resume=False)
    path.write_text(json.dumps({"parts": [{"free": "q" * 300}]}))
    with pytest.raises(TaskError, match="line 1 needs 602 tokens, and the model reads 512; shorten it"):
        make_task_tuner(task=path).run(resume=False)
    assert not adapter.parent.exists()


def test_a_disk_that_fills_installs_nothing(
    make_task_tuner: MakeTaskTuner, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dgemma_engine.tools.tuning.task.task_tuner.write_whole", full)
    with pytest.raises(TrainingError, match=r"before\.json: cannot be written .No space left on device"):
        make_task_tuner().run(resume=False)
    assert not adapter.exists()


def test_steps_are_a_function_of_the_seed(make_task_tuner: MakeTaskTuner, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = list[list[int]]()
    backward = CanvasBase.backward

    def watched(base: CanvasBase, batch: CanvasBatch) -> float:
        drawn.append(batch.input_XN.flatten().tolist())
        return backward(base, batch)

    monkeypatch.setattr(CanvasBase, "backward", watched)
    make_task_tuner(minutes=2.0).run(resume=False)
    num_steps = len(drawn)
    make_task_tuner(minutes=2.0).run(resume=False)
    assert drawn[:num_steps] == drawn[num_steps:]
