from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from dgemma_engine.cli import main
from dgemma_engine.repository_adapters.store import AdapterStore
from dgemma_engine.repository_adapters.training_folder import TrainingFacts

from tests.engine.repository_adapters.conftest import MakeAbout, factors, make_about  # noqa: F401, a fixture


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AdapterStore:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return AdapterStore(folder=tmp_path / "data" / "dgemma-lsp" / "adapters")


def test_empty_store_says_how_to_fill_it(store: AdapterStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapters"]) == 0
    assert capsys.readouterr().out == "no repository was learnt yet; run: dgemma-engine tune DIR\n"
    assert main(["adapters", "--json"]) == 0
    assert capsys.readouterr().out == ""


def test_adapters_are_listed_with_base_gain_and_size(
    store: AdapterStore,
    capsys: pytest.CaptureFixture[str],
    make_about: MakeAbout,  # noqa: F811
) -> None:
    about = make_about()
    made = store.install(about, adapter=factors(2_500_000), calibration=b"{}")
    assert main(["adapters"]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split() == ["base.gguf", "2026-01-31", "30.0", "%", "->", "30.0", "%", "2.5", "MB", "on", about.root]
    assert main(["adapters", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["root"], facts["bytes"], facts["calibrated"]) == (about.root, made.num_bytes, True)
    assert facts["before"]["rest"] == 0.3 and facts["is_enabled"]
    assert (facts["state"], facts["message"]) == ("on", "")


def test_adapter_is_switched_off_and_on_and_removed(
    store: AdapterStore,
    capsys: pytest.CaptureFixture[str],
    make_about: MakeAbout,  # noqa: F811
) -> None:
    root = make_about().root
    store.install(make_about(), adapter=factors(), calibration=None)
    for action, is_enabled in (("off", False), ("off", False), ("on", True)):
        assert main(["adapters", action, root]) == 0
        found = store.get(Path(root))
        assert found is not None and found.about.is_enabled == is_enabled
        assert capsys.readouterr().out == f"{root}: {action}\n"
    assert main(["adapters", "rm", root]) == 0
    assert store.get(Path(root)) is None


@pytest.mark.parametrize("action", ["rm", "off", "on"])
def test_folder_without_adapter_is_reported_in_one_sentence(
    store: AdapterStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    assert main(["adapters", action, str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "has no adapter; `dgemma-engine adapters` lists those there are" in error and error.count("\n") == 1


def test_damaged_about_file_is_reported_and_the_others_are_listed(
    store: AdapterStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make_about: MakeAbout,  # noqa: F811
) -> None:
    store.install(make_about(), adapter=factors(), calibration=None)
    other = store.install(make_about(root=str(tmp_path / "other")), adapter=factors(), calibration=None)
    (other.folder.parent / "about.json").write_text("{")
    assert main(["adapters"]) == 1
    captured = capsys.readouterr()
    assert "about.json: cannot be used" in captured.err and captured.err.count("\n") == 1
    assert make_about().root in captured.out and len(captured.out.splitlines()) == 2
    store.remove(Path(make_about().root))
    assert main(["adapters"]) == 1
    # The only adapter left cannot be used.
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"garbage", None])
def test_adapter_whose_file_is_damaged_is_listed_as_such_beside_the_others(
    store: AdapterStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make_about: MakeAbout,  # noqa: F811
    content: bytes | None,
) -> None:
    store.install(make_about(), adapter=factors(), calibration=None)
    other = store.install(make_about(root=str(tmp_path / "other")), adapter=content or b"", calibration=None)
    if content is None:
        shutil.rmtree(other.folder)
    assert main(["adapters"]) == 1
    captured = capsys.readouterr()
    states = {row.split()[-1]: row.split()[-2] for row in captured.out.splitlines()[1:]}
    assert states == {make_about().root: "on", other.about.root: "damaged"}
    assert captured.err.count("\n") == 1
    sentence = f"the adapter of {other.about.root} is damaged: causal.safetensors is"
    assert sentence in captured.err and f"dgemma-engine adapters rm {other.about.root}" in captured.err
    assert main(["adapters", "--json"]) == 1
    facts = {one["root"]: one for one in map(json.loads, capsys.readouterr().out.splitlines())}
    assert facts[other.about.root]["state"] == "damaged" and sentence in facts[other.about.root]["message"]
    assert main(["adapters", "rm", other.about.root]) == 0
    assert main(["adapters"]) == 0


def test_unfinished_training_is_listed_and_removed(
    store: AdapterStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training, root = store.training_folder(tmp_path), str(tmp_path.resolve())
    with training.exclusive():
        training.begin(
            TrainingFacts(root=root, base_name="b.gguf", started="2026-01-31T10:00:00+00:00", minutes=20.0, seed=0)
        )
        (training.path / "state.pt").write_bytes(bytes(1_500_000))
    assert main(["adapters"]) == 0
    _, row, remedy = capsys.readouterr().out.splitlines()
    assert row.split() == ["b.gguf", "2026-01-31", "-", "1.5", "MB", "unfinished", root]
    assert "go on with `dgemma-engine tune DIR --resume`, or drop it with `dgemma-engine adapters rm DIR" in remedy
    assert main(["adapters", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["root"], facts["state"], facts["bytes"], facts["message"]) == (root, "unfinished", 1_500_000, remedy)
    with training.exclusive():
        assert main(["adapters", "rm", root]) == 1
        assert "another process is tuning this already" in capsys.readouterr().err
    assert main(["adapters", "rm", root, "--unfinished"]) == 0
    assert list(store.all()) == []


def test_control_characters_of_a_root_are_escaped(
    store: AdapterStore,
    capsys: pytest.CaptureFixture[str],
    make_about: MakeAbout,  # noqa: F811
) -> None:
    store.install(make_about(root="/a\nb\x1b[31m\udcff/\u00e9"), adapter=factors(), calibration=None)
    assert main(["adapters"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("/a\\nb\\x1b[31m\\udcff/\u00e9")
