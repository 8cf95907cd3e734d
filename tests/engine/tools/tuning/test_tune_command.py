from __future__ import annotations

import json
from pathlib import Path

import pytest
from dgemma_engine.cli import main
from dgemma_engine.repository_adapters.store import AdapterStore
from dgemma_engine.tools.tuning import tune_command, tuner

from tests.engine.tools.tuning.conftest import KnowingEngine, source, work_clock
from tests.llama_checkpoints import make_llama
from tests.test_machine_outputs import documented


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of the test's own, an idle machine on mains, and no change of this process's priority."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("DGEMMA_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(tune_command, "_work_clock", work_clock)
    monkeypatch.setattr(tune_command.os, "nice", lambda _by: 0)
    # The least that is asked and learnt.
    monkeypatch.setattr(tuner, "_MIN_TRAINING_SHARE", 0.1)


@pytest.fixture
def user_store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(folder=tmp_path / "data" / "dgemma-lsp" / "adapters")


def tune(base: Path, repository: Path, *options: str) -> int:
    return main(["tune", str(repository), "--model", str(base), "--device", "cpu", "--minutes", "1", *options])


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
    assert percents == sorted(set(percents)) and percents[0] == 0 and percents[-1] >= 82
    assert all(one.keys() == {"percent", "message"} for one in progress)
    assert 0 <= last["before"] < last["after"] <= 1
    assert last["installed"] and last["figures"]["after"]["rest"] == last["after"]
    assert last["files"] == {"train": 22, "held_out": 8}
    assert documented("dgemma-engine tune --json") <= last.keys()


def test_result_that_is_no_better_is_no_fault(
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
    error = capsys.readouterr().err
    assert error.count("\n") == 1
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


def test_files_that_the_user_calls_private_are_not_read(
    base: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / ".dgemmaignore").write_text("file1*.py\n")
    error = refused(1, capsys, str(repository), "--model", str(base), "--private-file", "file2*.py")
    assert "8 source files can be learnt from (22 private left out), 24 are needed" in error


def test_machine_on_battery_starts_nothing(
    base: Path, repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_command, "_work_clock", lambda: work_clock(is_on_battery=lambda: True))
    error = refused(1, capsys, str(repository), "--model", str(base))
    assert "not started: the machine runs on battery; plug it in" in error


def test_bad_arguments_are_one_sentence(
    base: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("--model", str(base))
    assert "nowhere: is no folder; name the folder of a repository" in refused(2, capsys, "nowhere", *model)
    assert "nowhere.gguf: no such folder or GGUF file" in refused(2, capsys, str(repository), "--model", "nowhere.gguf")
    plain = make_llama(tmp_path / "plain")
    capsys.readouterr()
    error = refused(1, capsys, str(repository), "--model", str(plain.gguf))
    assert "model.gguf: has no adapter that fills holes" in error and "choose --model small" in error
    for minutes in ("0", "nan", "inf", "-1", "x"):
        with pytest.raises(SystemExit):
            main(["tune", str(repository), "--minutes", minutes])
        assert f"'{minutes}' must be a number of minutes above 0" in capsys.readouterr().err


def test_model_without_adapters_of_its_own_is_refused(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "choose --model small" in refused(1, capsys, str(repository), "--model", "tiny")


def test_folder_is_named_by_its_canonical_path(
    base: Path, repository: Path, engines: dict[str, KnowingEngine], user_store: AdapterStore, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(repository)
    (repository / "src" / "more.py").write_text(source(77))
    assert tune(base, tmp_path / "link") == 0
    found = user_store.get(repository)
    assert found is not None and found.about.root == str(repository.resolve())
