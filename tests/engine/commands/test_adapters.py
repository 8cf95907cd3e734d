from __future__ import annotations

import json
from pathlib import Path

import pytest
from dgemma_engine.cli import main
from dgemma_engine.repository_adapters.store import AdapterStore

from tests.engine.repository_adapters.conftest import MakeAbout, make_about  # noqa: F401, a fixture


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
    store.install(about, adapter=bytes(2_500_000), calibration=b"{}")
    assert main(["adapters"]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split() == ["base.gguf", "2026-01-31", "30.0", "%", "->", "30.0", "%", "2.5", "MB", "on", about.root]
    assert main(["adapters", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["root"], facts["bytes"], facts["calibrated"]) == (about.root, 2_500_002, True)
    assert facts["before"]["rest"] == 0.3 and facts["is_enabled"]


def test_adapter_is_switched_off_and_on_and_removed(
    store: AdapterStore,
    capsys: pytest.CaptureFixture[str],
    make_about: MakeAbout,  # noqa: F811
) -> None:
    root = make_about().root
    store.install(make_about(), adapter=b"factors", calibration=None)
    for action, is_enabled in (("off", False), ("off", False), ("on", True)):
        assert main(["adapters", action, root]) == 0
        found = store.get(Path(root))
        assert found is not None and found.about.is_enabled == is_enabled
        assert capsys.readouterr().out == f"{root}: {action}\n"
    assert main(["adapters", "rm", root]) == 0
    assert store.get(Path(root)) is None


@pytest.mark.parametrize("action", ["rm", "off", "on"])
def test_folder_without_adapter_is_one_sentence(
    store: AdapterStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    assert main(["adapters", action, str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "has no adapter; `dgemma-engine adapters` lists those there are" in error and error.count("\n") == 1


def test_damaged_adapter_hides_no_other(
    store: AdapterStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make_about: MakeAbout,  # noqa: F811
) -> None:
    store.install(make_about(), adapter=b"factors", calibration=None)
    other = store.install(make_about(root=str(tmp_path / "other")), adapter=b"factors", calibration=None)
    (other.folder.parent / "about.json").write_text("{")
    assert main(["adapters"]) == 1
    captured = capsys.readouterr()
    assert "about.json: cannot be used" in captured.err and captured.err.count("\n") == 1
    assert make_about().root in captured.out and len(captured.out.splitlines()) == 2
