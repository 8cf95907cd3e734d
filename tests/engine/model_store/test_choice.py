"""Which model runs: the named one, the default, or `tiny` in place of a default that is not downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from dgemma_engine.cli import main
from dgemma_engine.model_store.catalogue import CATALOGUE
from dgemma_engine.model_store.choice import ModelChoice, choose_model


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_DATA_HOME": str(tmp_path)}


def fetch(environ: dict[str, str], name: str = "small") -> None:
    entry = CATALOGUE[name]
    assert entry.file is not None
    path = Path(environ["XDG_DATA_HOME"]) / "dgemma-lsp/models" / name / entry.file.name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GGUF")


def test_named_model_runs_or_is_missing(environ: dict[str, str]) -> None:
    small = CATALOGUE["small"]
    assert choose_model("small", environ) == ModelChoice(runs="small", missing=small)
    assert choose_model("small", environ).notice == "the model small is not there yet; run: dgemma-engine pull small"
    assert not choose_model("small", environ).is_stand_in
    # Without a folder for models none is stored.
    assert choose_model("small", {}).missing is small
    fetch(environ)
    assert choose_model("small", environ) == ModelChoice(runs="small")
    assert choose_model("/some/folder", environ) == ModelChoice(runs="/some/folder")
    assert choose_model("embedded", environ) == choose_model("tiny", environ) == ModelChoice(runs="tiny")


def test_tiny_stands_in_for_a_default_that_is_missing(environ: dict[str, str]) -> None:
    choice = choose_model(None, environ)
    assert (choice.runs, choice.is_stand_in) == ("tiny", True)
    assert choice.notice == (
        "the model small is not there yet, so `tiny` answers in its place; run: dgemma-engine pull small"
    )
    fetch(environ)
    assert choose_model(None, environ) == ModelChoice(runs="small")


def test_old_name_is_reported_once_and_means_tiny(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", environ["XDG_DATA_HOME"])
    monkeypatch.setenv("DGEMMA_RUNTIME_DIR", str(tmp_path / "run"))
    notice = "dgemma-engine: the model `embedded` is called `tiny` now; write `tiny` for it\n"
    for argv, code in ((["status", "--model", "embedded"], 3), (["pull", "embedded"], 0)):
        assert main(argv) == code
        assert capsys.readouterr().err == notice
    assert main(["status", "--model", "tiny"]) == 3
    assert capsys.readouterr().err == ""
