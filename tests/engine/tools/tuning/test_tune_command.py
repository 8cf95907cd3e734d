from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.cli import main
from dgemma_engine.repository_adapters.store import AdapterStore
from dgemma_engine.repository_adapters.training_folder import TrainingFacts, TrainingFolder
from dgemma_engine.tools.training.checkpoint import STATE
from dgemma_engine.tools.tuning import training_config, tune_command, tuner
from dgemma_engine.tools.tuning.repository import repository_files

from tests.engine.tools.tuning.conftest import KnowingEngine, source, work_clock
from tests.llama_checkpoints import make_llama, make_qwen2, write_adapter
from tests.test_machine_outputs import documented


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Separate folders, an idle machine on mains power, and no change of this process's priority."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("DGEMMA_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(tune_command, "_start_clock", work_clock)
    monkeypatch.setattr(tune_command, "_work_clock", work_clock)
    monkeypatch.setattr(tune_command.os, "nice", lambda _by: 0)
    # The fewest holes and steps.
    monkeypatch.setattr(tuner, "_MIN_TRAINING_SHARE", 0.1)


@pytest.fixture
def user_store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(folder=tmp_path / "data" / "dgemma-lsp" / "adapters")


def tune(base: Path, repository: Path, *options: str) -> int:
    return main(["tune", str(repository), "--model", str(base), "--device", "cpu", "--minutes", "2", *options])


def test_repository_is_learnt_and_the_adapter_listed(
    base: Path,
    repository: Path,
    engines: dict[str, KnowingEngine],
    user_store: AdapterStore,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert tune(base, repository) == 0
    out = capsys.readouterr().out
    assert "rest of line exact" in out and out.splitlines()[-1].startswith("installed: of 24 held-out holes")
    assert main(["adapters"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["BASE", "DATE", "REST", "OF", "LINE", "SIZE", "STATE", "REPOSITORY"]
    assert row.startswith("model.gguf") and " on " in row and row.endswith(str(repository))
    found = user_store.get(repository)
    assert found is not None and found.about.minutes > 0


def test_lines_are_json_objects_and_the_last_one_is_the_result(
    base: Path, repository: Path, engines: dict[str, KnowingEngine], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(base, repository, "--json") == 0
    *progress, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    percents = [one["percent"] for one in progress]
    assert percents == sorted(percents) and percents[0] == 0 and percents[-1] >= 82
    assert all(one.keys() == {"percent", "message"} for one in progress)
    # Progress advances while completions are measured, and its messages are written for users.
    assert len({percent for percent in percents if percent < 10}) >= 5
    said = [one["message"] for one in progress]
    assert said[0] == "reading the repository" and len(set(said)) == len(said)
    assert not [line for line in said if re.search("hole|loss|nats|norm|rate|step", line)]
    assert 0 <= last["before"] < last["after"] <= 1
    assert last["installed"] and last["figures"]["after"]["rest"] == last["after"]
    assert last["files"] == {"train": 22, "held_out": 8}
    assert documented("dgemma-engine tune --json") <= last.keys()


def test_result_without_improvement_is_no_error(
    base: Path,
    repository: Path,
    engines: dict[str, KnowingEngine],
    user_store: AdapterStore,
    capsys: pytest.CaptureFixture[str],
) -> None:
    engines["after"] = engines["before"]
    assert tune(base, repository, "--json") == 0
    assert not json.loads(capsys.readouterr().out.splitlines()[-1])["installed"]
    assert user_store.get(repository) is None


def refused(code: int, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["tune", *arguments]) == code
    *progress, error = capsys.readouterr().err.splitlines()
    assert all(" % " in line for line in progress)
    return error


def test_too_few_files_say_how_many_are_needed(
    base: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in [*(repository / "src").iterdir()][3:]:
        path.unlink()
    error = refused(1, capsys, str(repository), "--model", str(base))
    assert "3 source files can be learnt from, 24 are needed; tune a larger folder" in error


def test_repository_that_is_all_generated_is_refused(
    base: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (repository / "src").iterdir():
        path.write_text(f"# @generated\n{path.read_text()}")
    error = refused(1, capsys, str(repository), "--model", str(base))
    assert "0 source files can be learnt from (30 generated left out), 24 are needed" in error


def test_files_that_the_user_made_private_are_not_read(
    base: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / ".dgemmaignore").write_text("file1*.py\n")
    error = refused(1, capsys, str(repository), "--model", str(base), "--private-file", "file2*.py")
    assert "8 source files can be learnt from (22 private or ignored left out), 24 are needed" in error


def test_machine_on_battery_starts_nothing(
    base: Path, repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_command, "_start_clock", lambda: work_clock(is_on_battery=lambda: True))
    error = refused(1, capsys, str(repository), "--model", str(base))
    assert "not started: the machine runs on battery; plug it in" in error


def test_bad_arguments_are_reported_in_one_sentence(
    base: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("--model", str(base))
    assert "nowhere: is no folder; name the folder of a repository" in refused(2, capsys, "nowhere", *model)
    assert "nowhere.gguf: no such folder or GGUF file" in refused(2, capsys, str(repository), "--model", "nowhere.gguf")
    plain = make_llama(tmp_path / "plain")
    capsys.readouterr()
    error = refused(1, capsys, str(repository), "--model", str(plain.gguf))
    assert "the model model.gguf has no adapter that fills holes" in error and "choose --model small" in error
    for minutes in ("0", "0.1", "nan", "inf", "-1", "x"):
        with pytest.raises(SystemExit):
            main(["tune", str(repository), "--minutes", minutes])
        assert f"'{minutes}' must be a number of minutes, at least 2" in capsys.readouterr().err


def test_qwen2_is_refused_before_anything_is_read(
    repository: Path,
    tmp_path: Path,
    user_store: AdapterStore,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, read = make_qwen2(tmp_path / "qwen2").gguf, list[object]()
    capsys.readouterr()
    monkeypatch.setattr(repository_files, "read_repository", lambda *arguments: read.append(arguments))
    error = refused(1, capsys, str(repository), "--model", str(path))
    assert "the model model.gguf has no adapter that fills holes" in error and "choose --model small" in error
    assert not user_store.folder.exists() and not read


def test_model_without_adapters_of_its_own_is_refused(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(1, capsys, str(repository), "--model", "tiny")
    assert "the model tiny has no adapter that fills holes" in error and "choose --model small" in error


def test_folder_is_named_by_its_canonical_path(
    base: Path, repository: Path, engines: dict[str, KnowingEngine], user_store: AdapterStore, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(repository)
    (repository / "src" / "more.py").write_text(source(77))
    assert tune(base, tmp_path / "link") == 0
    found = user_store.get(repository)
    assert found is not None and found.about.root == str(repository.resolve())


def stop_it(monkeypatch: pytest.MonkeyPatch, base: Path, repository: Path, *options: str) -> int:
    """Tunes until the user interrupts after the first steps."""
    asked = iter(range(10**6))
    with monkeypatch.context() as patched:
        patched.setattr(tune_command, "_work_clock", lambda: work_clock(is_interrupted=lambda: next(asked) >= 28))
        return tune(base, repository, *options)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [((), "go on with --resume"), (("--resume-if-possible",), "go on with the same command")],
)
def test_interrupted_tuning_exits_with_130_and_one_sentence(
    base: Path,
    repository: Path,
    engines: dict[str, KnowingEngine],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    remedy: str,
) -> None:
    assert stop_it(monkeypatch, base, repository, "--json", *options) == 130
    error = capsys.readouterr().err
    assert error == f"dgemma-engine: stopped, nothing was installed: interrupted; {remedy}\n"


def test_resumed_tuning_keeps_minutes_and_seed(
    base: Path,
    repository: Path,
    engines: dict[str, KnowingEngine],
    user_store: AdapterStore,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop_it(monkeypatch, base, repository, "--minutes", "3", "--seed", "4")
    facts, folder = user_store.training_folder(repository).facts(), user_store.training_folder(repository)
    assert facts is not None and (facts.minutes, facts.seed) == (3, 4)
    capsys.readouterr()
    model = ("--model", str(base), "--device", "cpu", "--resume")
    error = refused(2, capsys, str(repository), *model, "--seed", "5")
    assert "--seed 5: the tuning that goes on has the seed 4; leave out --seed, or --resume" in error
    num_measured, said = engines["before"].num_asked, list[TrainingFacts | None]()
    noted = TrainingFolder.begin
    monkeypatch.setattr(TrainingFolder, "begin", lambda folder, facts: (said.append(facts), noted(folder, facts))[1])
    assert main(["tune", str(repository), *model]) == 0
    assert said[0] is not None and (said[0].minutes, said[0].seed) == (3, 4)
    assert engines["before"].num_asked == num_measured and not folder.path.exists()


def test_nothing_to_resume_is_refused_before_anything_is_read(
    base: Path,
    repository: Path,
    engines: dict[str, KnowingEngine],
    user_store: AdapterStore,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert tune(base, repository, "--resume") == 1
    assert capsys.readouterr().err == (
        f"dgemma-engine: {repository}: nothing to resume, no tuning was interrupted here; start without --resume\n"
    )
    assert not user_store.folder.exists()
    assert tune(base, repository, "--resume-if-possible") == 0


def test_second_tuning_of_a_folder_is_refused_before_anything_is_read(
    base: Path, repository: Path, user_store: AdapterStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with user_store.training_folder(repository).exclusive():
        assert tune(base, repository) == 1
    assert capsys.readouterr().err == (
        "dgemma-engine: another process is tuning this already; wait for it, or stop it first\n"
    )


@pytest.mark.parametrize("change", ["nothing", "a file more", "the base", "the seed and the rank", "a damaged state"])
def test_tuning_that_cannot_resume_restarts_if_requested(
    base: Path,
    repository: Path,
    engines: dict[str, KnowingEngine],
    user_store: AdapterStore,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    stop_it(monkeypatch, base, repository)
    num_measured, reason = engines["before"].num_asked, ""
    if change == "a file more":
        (repository / "src" / "other.py").write_text(source(99))
        engines["before"] = KnowingEngine(repository, 0.3)
        engines["after"] = KnowingEngine(repository, 0.9)
        num_measured, reason = 0, "files were added or removed since the training began"
    elif change == "the base":
        base.write_bytes(base.read_bytes() + b"\0")
        write_adapter(base, "causal")
        reason = "model.gguf: the model or its adapter has changed since the training began"
    elif change == "the seed and the rank":
        monkeypatch.setattr(training_config, "RANKS", (8,))
        reason = "model.rank"
    elif change == "a damaged state":
        (user_store.training_folder(repository).path / STATE).write_bytes(b"damaged")
        reason = "state.pt: is damaged"
    capsys.readouterr()
    assert tune(base, repository, "--json", "--resume-if-possible") == 0
    *progress, last = map(json.loads, capsys.readouterr().out.splitlines())
    anew = [one["message"] for one in progress if one["message"].startswith("beginning anew, ")]
    is_anew = change != "nothing"
    assert len(anew) == is_anew and all(reason in line for line in anew)
    assert ("; an earlier training was dropped: " in last["message"] and reason in last["message"]) == is_anew
    assert last["installed"] and (engines["before"].num_asked > num_measured) == is_anew
    assert not user_store.training_folder(repository).path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no such signals: not checked")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", ["listing folders", "asking git", "reading files"])
def test_signal_ends_reading_at_once_with_one_sentence(
    base: Path,
    repository: Path,
    user_store: AdapterStore,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    place: str,
) -> None:
    """Starts with the default signal handlers of a program."""
    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    asked = list[int]()

    def slow(*_arguments: object, **_options: object) -> None:
        asked.append(1)
        signal.raise_signal(number)
        pytest.fail("reading continued after the signal")

    target = {"listing folders": "os.walk", "asking git": "subprocess.run", "reading files": "pathlib.Path.read_bytes"}
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with monkeypatch.context() as patched:
            patched.setattr(target[place], slow)
            assert main(["tune", str(repository), "--model", str(base), "--json"]) == 130
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)
    error = capsys.readouterr().err
    assert asked == [1]
    assert error == "dgemma-engine: interrupted before anything was learnt; nothing is changed\n"
    assert not user_store.folder.exists()


def test_priority_is_the_lowest_before_anything_is_read(
    base: Path, repository: Path, engines: dict[str, KnowingEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    events, read = list[str](), repository_files.read_repository

    def noting(*arguments: Any) -> Any:
        events.append("read")
        return read(*arguments)

    monkeypatch.setattr(tune_command.os, "nice", lambda by: events.append(f"nice {by}"))
    monkeypatch.setattr(repository_files, "read_repository", noting)
    assert tune(base, repository) == 0
    assert events == ["nice 19", "read"]


def test_unread_files_of_a_large_repository_are_reported(
    base: Path,
    repository: Path,
    engines: dict[str, KnowingEngine],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repository_files, "MAX_FILES", 25)
    assert tune(base, repository, "--json") == 0
    *progress, last = map(json.loads, capsys.readouterr().out.splitlines())
    line = "reading the source files that were changed last; 5 older ones are left out"
    assert {"percent": 0, "message": line} in progress
    assert last["files"] == {"train": 17, "held_out": 8}
