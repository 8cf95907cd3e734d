from __future__ import annotations

import errno
import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine import durable_files
from dgemma_engine.cli import main
from dgemma_engine.errors import TrainingError
from dgemma_engine.infill.engine import Engine
from dgemma_engine.protocol.messages import Context
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tools.training import checkpoint
from dgemma_engine.tools.training.data.training_data import CorpusData
from dgemma_engine.tools.training.train_config import TrainConfig
from dgemma_engine.tools.training.trainer import Trainer


class StepClock:
    """Advances 6 s at each reading, so that ten steps take a minute."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def __call__(self) -> float:
        self._now_s += 6.0
        return self._now_s


MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def make_trainer(corpus: Path, settings: dict[str, Any], tmp_path: Path) -> MakeTrainer:
    def make(name: str = "run", **tables: dict[str, Any]) -> Trainer:
        values = settings | {key: settings.get(key, {}) | table for key, table in tables.items()}
        config = TrainConfig.from_dict(values)
        return Trainer(
            config, data=CorpusData(corpus, config), out=tmp_path / name, device=torch.device("cpu"),
            clock=StepClock(), report=lambda _line: None,
        )  # fmt: skip

    return make


def test_training_learns_and_leaves_a_model_the_engine_loads(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer()
    trainer.run(3.0)
    points, evaluations = trainer.curves.points, trainer.curves.evaluations
    assert points[-1].causal < 0.8 * points[0].causal
    assert evaluations[-1].causal < 0.9 * points[0].causal
    assert evaluations[-1].slot < points[0].slot
    curves = json.loads((tmp_path / "run" / "curves.json").read_text())
    assert len(curves["points"]) == len(points)
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1_000
    for name in ("latest", "best"):
        folder = tmp_path / "run" / name
        card = (folder / "README.md").read_text()
        assert "| MIT | " in card
        assert "Held out whole: " in card
        engine = Engine.load(folder, device="cpu", report=lambda _percent, _line: None)
        context = Context(document="", prefix="def f(x, y):\n    ", suffix="\n\n\ndef g", deadline_ms=60_000)
        infill = engine.infill(context, Cancel(deadline_s=math.inf, clock=lambda: 0.0))
        assert infill.steps >= 1


def test_failed_write_of_any_file_leaves_the_last_one_whole(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, run, sync_file = make_trainer(), tmp_path / "run", durable_files.sync_file
    trainer.run(0.2)
    failing: list[Path] = []

    def fail(unfinished: Path) -> None:
        if unfinished in failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync_file(unfinished)

    monkeypatch.setattr(durable_files, "sync_file", fail)
    paths = [*filter(Path.is_file, run.iterdir()), *(run / "latest").iterdir()]
    written = {"config.json", "curves.json", "curves.png", "generation_config.json", "infill.json", "tokenizer.json"}
    assert {path.name for path in paths} >= written
    for path in paths:
        path.write_bytes(b"the last one")
        failing[:] = [path.with_name(f".{path.name}.part")]
        with pytest.raises(TrainingError, match=r"cannot be written \(No space left on device\)"):
            trainer.save()
        assert path.read_bytes() == b"the last one"
        assert not failing[0].exists()


def test_resumed_run_makes_the_same_losses_as_an_uninterrupted_one(make_trainer: MakeTrainer) -> None:
    whole = make_trainer("whole", schedule={"cooldown_share": 0.0})
    whole.run(2.0)
    parts = make_trainer("parts", schedule={"cooldown_share": 0.0})
    parts.run(1.0)
    resumed = make_trainer("parts", schedule={"cooldown_share": 0.0})
    resumed.resume()
    resumed.run(2.0)

    def losses(trainer: Trainer) -> list[tuple[int, float, float]]:
        return [(point.step, point.slot, point.causal) for point in trainer.curves.points]

    assert len(losses(whole)) == 20
    assert losses(resumed) == losses(whole)


def test_resume_refuses_another_configuration_and_names_the_key(make_trainer: MakeTrainer) -> None:
    make_trainer().run(0.2)
    with pytest.raises(TrainingError, match=r"another configuration \(different: optimizer.momentum\)"):
        make_trainer(optimizer={"momentum": 0.5}).resume()


def test_resume_with_a_missing_or_damaged_state_is_refused(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer()
    with pytest.raises(TrainingError, match=r"state.pt: missing, nothing to resume"):
        trainer.resume()
    (tmp_path / "run" / "state.pt").write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match=r"state.pt: is damaged"):
        trainer.resume()


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer()
    trainer.run(0.5)
    good = (tmp_path / "run" / "state.pt").read_bytes()
    with torch.no_grad():
        trainer.model.norm.weight.fill_(math.nan)
    with pytest.raises(TrainingError, match=r"the loss is nan at step \d+; stopped, the last good checkpoint is in"):
        trainer.run(5.0)
    assert (tmp_path / "run" / "state.pt").read_bytes() == good


def test_nan_gradient_changes_no_weight(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.model.embed_tokens.weight.register_hook(lambda grad: grad * math.inf)
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    with pytest.raises(TrainingError, match=r"the gradient norm is (nan|inf) at step 0; stopped"):
        trainer.run(1.0)
    assert all(torch.equal(parameter, before[name]) for name, parameter in trainer.model.named_parameters())


def test_interrupted_run_saves_its_state_and_resumes_from_it(make_trainer: MakeTrainer) -> None:
    answers = iter([False, False, True])
    trainer = make_trainer()
    trainer.run(3.0, interrupted=lambda: next(answers))
    assert trainer.curves.evaluations == []
    resumed = make_trainer()
    resumed.resume()
    resumed.run(1.0)
    assert [point.step for point in resumed.curves.points] == [1, 2, 3, *range(4, 1 + len(resumed.curves.points))]
    assert len(resumed.curves.points) > 3 == len(trainer.curves.points)


def test_a_signal_ends_a_run_with_its_state_saved(corpus: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(_toml(settings))
    arguments = ["train", str(config), "--corpus", str(corpus), "--out", str(tmp_path / "run"), "--minutes", "60"]
    command = [sys.executable, "-m", "dgemma_engine", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            # Once only: a second signal ends the process at once.
            if line.startswith("step ") and not any(earlier.startswith("step ") for earlier in lines):
                process.send_signal(signal.SIGTERM)
            lines.append(line)
        assert process.wait() == 0
    assert "interrupted at step" in lines[-1]
    assert (tmp_path / "run" / "state.pt").exists()


def test_full_disk_names_the_path_and_keeps_the_last_good_state(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer()
    trainer.run(0.5)
    good = (tmp_path / "run" / "state.pt").read_bytes()

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"run/state.pt: cannot be written .*No space left"):
        trainer.run(5.0)
    assert (tmp_path / "run" / "state.pt").read_bytes() == good
    assert [path.name for path in (tmp_path / "run").iterdir() if path.name.endswith(".part")] == []
    monkeypatch.undo()
    monkeypatch.setattr(checkpoint, "save_checkpoint", full)
    with pytest.raises(TrainingError, match=r"run/latest: cannot be written"):
        trainer.save()


def test_a_corpus_of_one_split_is_refused(settings: dict[str, Any], tmp_path: Path, corpus: Path) -> None:
    import numpy as np

    for path in corpus.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    np.save(tmp_path / "held_out.npy", np.zeros(0, dtype=np.int64))
    config = TrainConfig.from_dict(settings)
    with pytest.raises(TrainingError, match="its held_out split is empty"):
        Trainer(
            config, data=CorpusData(tmp_path, config), out=tmp_path / "run", device=torch.device("cpu"),
            clock=StepClock(), report=lambda _line: None,
        )  # fmt: skip


def _toml(values: dict[str, Any]) -> str:
    tables = (f"[{name}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in t.items()) for name, t in values.items())
    return "\n".join(tables)


def test_command_trains_refuses_to_overwrite_and_resumes(
    settings: dict[str, Any], corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("time.monotonic", StepClock())
    (tmp_path / "c.toml").write_text(_toml(settings))
    command = ["train", str(tmp_path / "c.toml"), "--corpus", str(corpus), "--out", str(tmp_path / "run")]
    command += ["--threads", str(torch.get_num_threads()), "--device", "cpu"]
    assert main([*command, "--minutes", "0.3"]) == 0
    assert "held out at step" in capsys.readouterr().out
    assert main([*command, "--minutes", "0.3"]) == 1
    assert "holds a run already; use --resume" in capsys.readouterr().err
    assert main([*command, "--minutes", "0.6", "--resume"]) == 0
    assert "resumed at step" in capsys.readouterr().out
    (tmp_path / "run" / "state.pt").unlink()
    assert main([*command, "--minutes", "0.3"]) == 1
    assert "holds a run already" in capsys.readouterr().err, "the existing run must be kept"
