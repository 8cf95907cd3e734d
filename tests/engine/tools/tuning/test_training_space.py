from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from dgemma_engine.errors import TrainingError
from dgemma_engine.repository_adapters.store import AdapterStore
from dgemma_engine.tools.adaptation.trainer import AdaptTrainer
from dgemma_engine.tools.training.checkpoint import STATE
from dgemma_engine.tools.tuning.training_space import disk_bytes, state_bytes
from dgemma_engine.tools.tuning.tuned_base import TunedBase

from tests.engine.tools.tuning.conftest import KnowingEngine, MakeTuner

Usage = namedtuple("Usage", ["total", "used", "free"])


def set_free_space(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(10**12, 0, num_bytes))


def test_state_and_copies_fit_into_the_computed_space(
    make_tuner: MakeTuner,
    engines: dict[str, KnowingEngine],
    store: AdapterStore,
    repository: Path,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    most, folder = list[int](), store.training_folder(repository)
    shapes, save = list[torch.Size](), AdaptTrainer.save

    def saved(trainer: AdaptTrainer) -> None:
        save(trainer)
        shapes[:] = [tensor.shape for tensor in trainer.base.factors.values()]
        most.append((folder.path / STATE).stat().st_size)

    monkeypatch.setattr(AdaptTrainer, "save", saved)
    make_tuner().run(resume=False)
    assert 5 * 4 * sum(shape.numel() for shape in shapes) < max(most) < state_bytes(shapes)
    assert 2 * max(most) < disk_bytes(TunedBase.of(base), 4)


def test_full_disk_is_refused_before_anything_is_measured(
    make_tuner: MakeTuner,
    engines: dict[str, KnowingEngine],
    store: AdapterStore,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needed = disk_bytes(TunedBase.of(base), 4)
    set_free_space(monkeypatch, needed - 1)
    sentence = (
        r"training: \d+ MB are needed there while it trains, and \d+ MB are free; free some space, then start again$"
    )
    with pytest.raises(TrainingError, match=sentence):
        make_tuner().run(resume=False)
    assert engines["before"].num_asked == 0 and list(store.folder.iterdir()) == []
    set_free_space(monkeypatch, needed)
    assert make_tuner().run(resume=False).installed is not None


def test_existing_files_count_towards_the_space(
    make_tuner: MakeTuner,
    engines: dict[str, KnowingEngine],
    store: AdapterStore,
    repository: Path,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = store.training_folder(repository).path
    folder.mkdir(parents=True)
    (folder / "curve.jsonl").write_bytes(bytes(1_000))
    set_free_space(monkeypatch, disk_bytes(TunedBase.of(base), 4) - 1_000)
    assert make_tuner().run(resume=True).installed is not None
