"""What a model's name on the command line stands for: short names, folders, GGUF files, and typos."""

from __future__ import annotations

from pathlib import Path

import pytest
from dgemma_engine.checkpoint.builtin import model_folder, require_model
from dgemma_engine.errors import CheckpointError, WrongUsage
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.model_store.catalogue import CATALOGUE
from dgemma_engine.model_store.user_folder import ModelStore


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


def test_tiny_is_the_embedded_model() -> None:
    assert model_folder("tiny") == model_folder("tiny")
    require_model("tiny")
    tiny, embedded = (EngineLocation.locate({}, model=name) for name in ("tiny", "embedded"))
    assert tiny == embedded


def test_short_name_is_the_fetched_file(data: Path) -> None:
    with pytest.raises(CheckpointError, match="the model small is not there yet; run: dgemma-engine pull small"):
        model_folder("small")
    with pytest.raises(WrongUsage, match="the model small is not there yet; run: dgemma-engine pull small"):
        require_model("small")
    small = CATALOGUE["small"]
    assert small.file is not None
    path = ModelStore(folder=data / "dgemma-lsp/models").final_folder(small) / small.file.name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GGUF")
    assert model_folder("small") == path
    require_model("small")
    assert EngineLocation.locate({}, model="small").model == "small"


def test_model_that_is_not_fetched_says_how_to_get_it() -> None:
    with pytest.raises(WrongUsage, match="diffusiongemma is not there yet; run: dgemma-engine pull diffusiongemma"):
        require_model("diffusiongemma")


def test_gguf_file_is_a_model(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    assert model_folder(str(path)) == path
    require_model(str(path))
    with pytest.raises(CheckpointError, match="is no model folder and no GGUF file"):
        model_folder(str(tmp_path / "absent.gguf"))


@pytest.mark.parametrize(("name", "near"), [("smal", "small"), ("Tiny", "tiny"), ("embeded", "embedded")])
def test_typo_is_refused_with_the_nearest_name(tmp_path: Path, name: str, near: str) -> None:
    # A server and its engine hold the name as an absolute path.
    for written in (name, str(tmp_path / name)):
        with pytest.raises(WrongUsage, match=rf"{name}: no such model; did you mean {near}\?$"):
            require_model(written)
