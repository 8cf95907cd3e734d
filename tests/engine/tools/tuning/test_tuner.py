from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dgemma_engine.checkpoint.calibration import Calibration, fingerprint
from dgemma_engine.errors import AdapterStoreError, CannotResume, Diverged, EngineError, Interrupted, TrainingError
from dgemma_engine.families.llama.adapter import Adapter
from dgemma_engine.families.llama.adapter import fingerprint as sha256_of
from dgemma_engine.infill.candidate import Ranked
from dgemma_engine.infill.options import InfillOptions
from dgemma_engine.private_files import open_private, try_lock
from dgemma_engine.protocol.messages import Context
from dgemma_engine.repository_adapters import store as store_module
from dgemma_engine.repository_adapters.store import AdapterStore
from dgemma_engine.repository_adapters.training_folder import TrainingFacts
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tools.adaptation.trainer import AdaptTrainer
from dgemma_engine.tools.training.checkpoint import STATE
from dgemma_engine.tools.tuning import refit, tuner

from tests.engine.tools.tuning.conftest import NOW, KnowingEngine, MakeTuner, source, work_clock
from tests.llama_checkpoints import write_adapter

Engines = dict[str, KnowingEngine]


def installed(store: AdapterStore, repository: Path) -> bytes | None:
    found = store.get(repository)
    return None if found is None else found.path.read_bytes()


@pytest.fixture
def old(store: AdapterStore, repository: Path, make_about: Callable[..., object]) -> bytes:
    """An adapter that is there already."""
    store.install(make_about(root=str(repository.resolve())), adapter=b"old", calibration=None)  # pyright: ignore[reportArgumentType]
    return b"old"


def test_real_engine_and_trainer_come_to_a_verdict(
    make_tuner: MakeTuner, store: AdapterStore, repository: Path
) -> None:
    result = make_tuner().run(resume=False)
    assert (result.installed is not None) == result.comparison.is_better
    assert store.find(repository / "src") == result.installed
    assert result.before.num_holes == result.after.num_holes >= tuner.MIN_HOLES
    assert result.before != result.after and result.steps > 0 and result.holes > 0
    assert (result.num_train, result.num_held_out) == (22, 8)


def test_better_adapter_is_installed_with_its_metadata(
    make_tuner: MakeTuner, engines: Engines, store: AdapterStore, repository: Path, base: Path, old: bytes
) -> None:
    result = make_tuner().run(resume=False)
    found = store.find(repository / "src")
    assert found is not None and found == result.installed and found.path.read_bytes() != old
    assert Adapter.read(found.path).rank == 4
    about = found.about
    merged = base.parent / "adapters" / "causal.safetensors"
    assert (about.base_sha256, about.merged_sha256) == (sha256_of(base), sha256_of(merged))
    assert (about.base_name, about.created, about.is_enabled) == ("model.gguf", NOW.isoformat(), True)
    assert (about.before, about.after) == (result.before, result.after)
    assert about.after.edit_similarity > about.before.edit_similarity
    assert about.holes == result.holes > 0
    values = result.to_json()
    assert (values["before"], values["after"], values["installed"]) == (about.before.rest, about.after.rest, True)
    assert values["p_value"] < 0.05 and values["bytes"] == found.num_bytes
    assert result.sentence.startswith("installed: of ")
    assert not store.training_folder(repository).path.exists()


@pytest.mark.parametrize("share", [0.3, 0.1])
def test_adapter_that_is_no_better_changes_nothing(
    make_tuner: MakeTuner, engines: Engines, store: AdapterStore, repository: Path, old: bytes, share: float
) -> None:
    engines["after"] = KnowingEngine(repository, share)
    result = make_tuner().run(resume=False)
    assert result.installed is None and installed(store, repository) == old
    assert result.sentence.startswith("not installed: of ") and result.to_json()["bytes"] is None
    assert not store.training_folder(repository).path.exists()


def test_engine_that_answers_without_the_adapter_measures_nothing(
    make_tuner: MakeTuner, engines: Engines, store: AdapterStore, repository: Path, old: bytes
) -> None:
    engines["after"].adapters = {str(repository.resolve()): "the adapter cannot be used: its file is damaged"}
    with pytest.raises(TrainingError, match="nothing was installed: the adapter cannot be used: its file is damaged"):
        make_tuner().run(resume=False)
    assert installed(store, repository) == old
    # Resuming from here would fail in the same way.
    assert not store.training_folder(repository).path.exists()


def test_nothing_is_left_of_a_repository_without_an_adapter(
    make_tuner: MakeTuner, engines: Engines, store: AdapterStore
) -> None:
    engines["after"] = engines["before"]
    make_tuner().run(resume=False)
    assert list(store.folder.iterdir()) == []


def test_calibration_is_fitted_where_there_are_enough_holes(
    make_tuner: MakeTuner,
    engines: Engines,
    store: AdapterStore,
    repository: Path,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refit, "MIN_HOLES", 24)
    result = make_tuner().run(resume=False)
    found = store.get(repository)
    assert result.is_calibrated and found is not None and found.calibration_path is not None
    calibration = Calibration.load(found.folder, fingerprint(base))
    assert calibration.weights is not None and calibration.provenance is not None
    assert calibration.provenance.num_holes == result.after.num_holes
    assert result.after.precision_shown is not None and result.before.precision_shown is not None
    assert result.after.precision_shown >= result.before.precision_shown


def interrupted_after(num_asked: int) -> Callable[[], bool]:
    asked = iter(range(10**6))
    return lambda: next(asked) >= num_asked


# 24 checks for an interruption precede the first step, and 1 begins the last one.
@pytest.mark.parametrize(("num_asked", "remedy"), [(5, "start again"), (27, "go on with --resume"), (30, "go on with")])
def test_interrupted_tuning_resumes_where_it_stopped(
    make_tuner: MakeTuner,
    engines: Engines,
    store: AdapterStore,
    repository: Path,
    old: bytes,
    num_asked: int,
    remedy: str,
) -> None:
    clock = work_clock(is_interrupted=interrupted_after(num_asked))
    with pytest.raises(Interrupted, match=f"stopped, nothing was installed: interrupted; {remedy}"):
        make_tuner(clock=clock).run(resume=False)
    assert installed(store, repository) == old
    num_measured, folder = engines["before"].num_asked, store.training_folder(repository)
    assert (folder.path / STATE).exists() == folder.is_unfinished == (num_asked > 24)
    result = make_tuner().run(resume=True)
    assert (engines["before"].num_asked == num_measured) == (num_asked > 24)
    assert result.installed is not None and installed(store, repository) != old


def test_killed_tuning_resumes_from_the_last_saved_state(
    make_tuner: MakeTuner, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends during a step without saving."""
    step, steps = AdaptTrainer._step, list[int]()

    def dying(trainer: AdaptTrainer, *arguments: object) -> None:
        steps.append(trainer.progress.step)
        if len(steps) == 12:
            raise SystemExit
        step(trainer, *arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(AdaptTrainer, "_step", dying)
    with pytest.raises(SystemExit):
        make_tuner(minutes=3).run(resume=False)
    num_measured = engines["before"].num_asked
    result = make_tuner(minutes=3).run(resume=True)
    assert engines["before"].num_asked == num_measured and result.installed is not None
    assert 0 < steps[12] <= 11, "resumes with the step after the last save"


def test_without_resume_everything_restarts(make_tuner: MakeTuner, engines: Engines) -> None:
    with pytest.raises(TrainingError):
        make_tuner(clock=work_clock(is_interrupted=interrupted_after(28))).run(resume=False)
    num_measured = engines["before"].num_asked
    make_tuner().run(resume=False)
    assert engines["before"].num_asked == 2 * num_measured


def test_battery_power_stops_tuning_and_the_state_is_kept(
    make_tuner: MakeTuner, engines: Engines, store: AdapterStore, repository: Path
) -> None:
    with pytest.raises(TrainingError, match="the machine runs on battery; go on with --resume") as caught:
        make_tuner(clock=work_clock(is_on_battery=interrupted_after(28))).run(resume=False)
    assert not isinstance(caught.value, Interrupted)
    unfinished = store.training_folder(repository).unfinished()
    assert unfinished is not None and unfinished.num_bytes > 0
    assert unfinished.facts == TrainingFacts(
        root=str(repository.resolve()), base_name="model.gguf", started=NOW.isoformat(), minutes=2.0, seed=0
    )


def test_resumed_tuning_uses_the_minutes_that_it_is_given(make_tuner: MakeTuner, engines: Engines) -> None:
    for minutes in (2.0, 2.0, 6.0):
        said = list[str]()
        with pytest.raises(Interrupted):
            tuner = make_tuner(
                minutes=minutes,
                clock=work_clock(is_interrupted=interrupted_after(28)),
                report=lambda _percent, line, said=said: said.append(line),
            )
            tuner.run(resume=True)
        learning = [line for line in said if line.startswith("learning, ")]
        # At least half of the time, less than all of it.
        assert minutes / 2 <= float(learning[-1].split(" of ")[1].split()[0]) < minutes


def test_resuming_without_a_state_starts(make_tuner: MakeTuner, engines: Engines) -> None:
    assert make_tuner().run(resume=True).installed is not None


def test_edited_held_out_file_is_measured_again(make_tuner: MakeTuner, engines: Engines, repository: Path) -> None:
    with pytest.raises(TrainingError):
        make_tuner(clock=work_clock(is_interrupted=interrupted_after(28))).run(resume=False)
    num_measured = engines["before"].num_asked
    for path in (repository / "src").iterdir():
        path.write_text(path.read_text() + "\n# the end of this file\n")
    engines["before"] = KnowingEngine(repository, 0.3)
    engines["after"] = KnowingEngine(repository, 0.9)
    assert make_tuner().run(resume=True).installed is not None
    assert engines["before"].num_asked == num_measured


def test_base_that_changed_is_refused(make_tuner: MakeTuner, engines: Engines, base: Path) -> None:
    with pytest.raises(TrainingError):
        make_tuner(clock=work_clock(is_interrupted=interrupted_after(28))).run(resume=False)
    base.write_bytes(base.read_bytes() + b"\0")
    write_adapter(base, "causal")
    with pytest.raises(
        CannotResume, match=r"model\.gguf: the model or its adapter has changed since the training began"
    ):
        make_tuner().run(resume=True)


@pytest.mark.parametrize("content", [b"", b"no state", None])
def test_damaged_state_is_refused_on_resuming(
    make_tuner: MakeTuner, engines: Engines, store: AdapterStore, repository: Path, content: bytes | None
) -> None:
    with pytest.raises(Interrupted):
        make_tuner(clock=work_clock(is_interrupted=interrupted_after(28))).run(resume=False)
    state = store.training_folder(repository).path / STATE
    state.write_bytes(state.read_bytes()[:-100] if content is None else content)
    with pytest.raises(
        CannotResume, match=r"its state is of no use \(.*state\.pt: is damaged\); start again"
    ) as caught:
        make_tuner().run(resume=True)
    assert "\n" not in str(caught.value)
    assert make_tuner().run(resume=False).installed is not None


@pytest.mark.parametrize("name", ["model.gguf", "adapters/causal.safetensors"])
def test_base_that_changes_during_tuning_installs_nothing(
    make_tuner: MakeTuner, engines: Engines, store: AdapterStore, repository: Path, base: Path, old: bytes, name: str
) -> None:
    class Changing(KnowingEngine):
        def ranked(self, context: Context, cancel: Cancel, *, options: InfillOptions) -> list[Ranked]:
            path = base.parent / name
            path.write_bytes(path.read_bytes() + b"\0")
            return super().ranked(context, cancel, options=options)

    engines["after"] = Changing(repository, 0.9)
    with pytest.raises(TrainingError, match="has changed since the training began") as caught:
        make_tuner().run(resume=False)
    assert installed(store, repository) == old
    # An automatic restart would fail in the same way.
    assert not isinstance(caught.value, CannotResume)


def test_other_files_are_refused_on_resuming(make_tuner: MakeTuner, engines: Engines, repository: Path) -> None:
    with pytest.raises(TrainingError):
        make_tuner(clock=work_clock(is_interrupted=interrupted_after(28))).run(resume=False)
    (repository / "src" / "other.py").write_text(source(99))
    with pytest.raises(CannotResume, match="files were added or removed since the training began; start again without"):
        make_tuner().run(resume=True)


def test_nan_installs_nothing(
    make_tuner: MakeTuner,
    engines: Engines,
    store: AdapterStore,
    repository: Path,
    old: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", lambda *_arguments: torch.tensor(math.nan))
    with pytest.raises(
        Diverged, match=r"the training failed \(the gradient norm is nan at step 0\), nothing was"
    ) as caught:
        make_tuner().run(resume=False)
    assert "\n" not in str(caught.value)
    assert installed(store, repository) == old
    # Resuming from this state would fail again.
    assert not store.training_folder(repository).path.exists()


def test_too_few_minutes_for_a_step_measure_nothing(
    make_tuner: MakeTuner, engines: Engines, store: AdapterStore, repository: Path, old: bytes
) -> None:
    with pytest.raises(TrainingError, match=r"no step of training fits into 0\.01 minutes here, nothing was installed"):
        make_tuner(minutes=0.01).run(resume=False)
    assert installed(store, repository) == old and engines["after"].num_asked == 0
    assert not store.training_folder(repository).path.exists()


def test_progress_advances_evenly_while_completions_are_measured(make_tuner: MakeTuner, engines: Engines) -> None:
    percents = list[int]()
    make_tuner(report=lambda percent, _line: percents.append(percent)).run(resume=False)
    assert percents == sorted(percents)
    assert len(set(percents) & set(range(11))) >= 10 and len(set(percents) & set(range(82, 100))) >= 16


def full(*_arguments: object, **_options: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "target",
    [
        "torch.save",
        "dgemma_engine.tools.adaptation.adapter_writer.put_in_place",
        "dgemma_engine.tools.tuning.begun_tuning.write_whole",
        "dgemma_engine.repository_adapters.training_folder.write_whole",
        "dgemma_engine.repository_adapters.store._write",
        "dgemma_engine.repository_adapters.training_folder.open_private",
    ],
)
def test_full_disk_is_reported_in_one_sentence_and_keeps_the_old_adapter(
    make_tuner: MakeTuner,
    engines: Engines,
    store: AdapterStore,
    repository: Path,
    old: bytes,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(target, full)
        with pytest.raises(EngineError, match="No space left on device") as caught:
            make_tuner().run(resume=False)
    assert "\n" not in str(caught.value) and "free some space" in str(caught.value)
    assert installed(store, repository) == old
    assert make_tuner().run(resume=True).installed is not None


def test_adapter_that_is_too_large_for_the_store_changes_nothing(
    make_tuner: MakeTuner,
    engines: Engines,
    store: AdapterStore,
    repository: Path,
    old: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store_module, "MAX_BYTES", 100)
    with pytest.raises(AdapterStoreError, match="are the most"):
        make_tuner().run(resume=False)
    assert installed(store, repository) == old


def test_tuning_by_another_process_is_reported(make_tuner: MakeTuner, store: AdapterStore, repository: Path) -> None:
    folder = store.training_folder(repository).path
    folder.mkdir(parents=True)
    descriptor = open_private(folder / "lock", os.O_RDWR | os.O_CREAT)
    try:
        assert try_lock(descriptor)
        with pytest.raises(TrainingError, match="another process is tuning this already; wait for it"):
            make_tuner().run(resume=False)
    finally:
        os.close(descriptor)


def test_files_without_holes_are_refused(make_tuner: MakeTuner, repository: Path) -> None:
    for path in (repository / "src").iterdir():
        path.write_text("".join(f"# {line}\n" for line in path.read_text().splitlines()))
    with pytest.raises(TrainingError, match="the held-out files give 0 holes, 24 are needed"):
        make_tuner().run(resume=False)
