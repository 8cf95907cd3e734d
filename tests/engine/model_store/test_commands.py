"""`pull`, `models` and `rm` as a user runs them, up to the download itself."""

from __future__ import annotations

import io
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from dgemma_engine.checkpoint.builtin import model_folder, model_name, require_model
from dgemma_engine.cli import main
from dgemma_engine.commands import pull
from dgemma_engine.errors import WrongUsage
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.lock_file import EngineLock
from dgemma_engine.model_store import fetch
from dgemma_engine.model_store.catalogue import CATALOGUE
from dgemma_engine.model_store.choice import choose_model
from dgemma_engine.model_store.hub_name import HubName
from dgemma_engine.model_store.progress_bar import ProgressBar
from dgemma_engine.model_store.user_folder import PULLED, ModelStore

from tests.package_index import Index, Made


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["pull", "smal"], 2, "smal: no model of this name; did you mean small?"),
        (["rm", "Tiny"], 2, "Tiny: no model of this name; did you mean tiny?"),
        (
            ["pull", "x"],
            2,
            f"x: no model of this name; there are {', '.join(CATALOGUE)}, and OWNER/NAME of the hub",
        ),
        (["rm", "tiny"], 1, "tiny was not fetched: it comes with this package"),
        (["rm", "small"], 1, "small is not there; `dgemma-engine models` lists what is"),
        (["rm", "dreamon"], 1, "dreamon is not there; `dgemma-engine models` lists what is"),
    ],
)
def test_refusal_is_reported_in_one_line(
    argv: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == code
    assert capsys.readouterr().err == f"dgemma-engine: {message}\n"


def test_models_lists_the_models_on_disk(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "SIZE", "MEMORY", "LICENCE", "WHERE"]
    assert "for tiny, small and coder on a processor, for every other model on a card" in lines[-1]
    assert lines[2].split(maxsplit=6) == [
        "small",
        "98",
        "MB",
        "1,119",
        "MiB",
        "Apache-2.0",
        "run: dgemma-engine pull small",
    ]
    small = CATALOGUE["small"]
    assert small.file is not None
    path = ModelStore.locate({"XDG_DATA_HOME": str(data)}).final_folder(small) / small.file.name
    path.parent.mkdir(parents=True)
    path.write_text("")
    # The real file has 98 MB, so its hash is faked.
    sha256 = small.file.sha256

    def hashed(_path: Path) -> str:
        return sha256

    monkeypatch.setattr(fetch, "_sha256", hashed)
    assert main(["models"]) == main(["pull", "small"]) == main(["rm", "small"]) == 0
    out = capsys.readouterr().out
    assert out.count(str(path)) == 2
    assert f"small: is there already: {path}\nsmall: removed\n" in out
    assert not path.exists()


def test_if_the_hub_fails_the_packages_are_downloaded(
    index: Index, made: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index.put(made.wheel, made.content)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    entry = replace(made.entry, repo="owner/little:m.gguf")
    monkeypatch.setattr("dgemma_engine.commands.pull.entry_of", lambda _name: entry)
    assert main(["pull", "coder"]) == 0
    told = capsys.readouterr()
    first, about, *_ = told.err.splitlines()
    assert first == "little: the hub cannot be reached; trying the package index, which has the same file"
    assert about.startswith(
        f"little: {entry.title}, {entry.licence}; 1 MB to download, 1 MB on the disk; from the package"
    )
    assert about.endswith(
        " of a third party, of which nothing is run and only a file with the SHA-256 of its makers is kept"
    )
    assert told.out.startswith("little: /") and told.out.endswith("/models/little/m.gguf\n")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_interrupted_download_says_how_to_go_on(
    made: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    def interrupted(_wheel: object, path: Path, _report: object) -> None:
        path.write_bytes(made.content[:1000])
        raise KeyboardInterrupt

    monkeypatch.setattr("dgemma_engine.commands.pull.entry_of", lambda _name: made.entry)
    monkeypatch.setattr(pull, "_with_pip_or_without", interrupted)
    assert main(["pull", "little", *options]) == 130
    told = capsys.readouterr()
    assert told.err.splitlines()[-1] == (
        "dgemma-engine: interrupted; what has come is kept, and the same command goes on with it"
    )
    assert told.out == ""


def test_model_in_use_by_an_engine_is_removed_and_that_is_reported(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGEMMA_RUNTIME_DIR", str(data / "run"))
    small = CATALOGUE["small"]
    folder = ModelStore.locate({"XDG_DATA_HOME": str(data)}).final_folder(small)
    location = EngineLocation.locate({"DGEMMA_RUNTIME_DIR": str(data / "run")}, model="small", device="auto")
    location.prepare()
    for is_held in (True, False):
        folder.mkdir(parents=True)
        with EngineLock.acquire(location.lock) or pytest.fail() if is_held else nullcontext():
            assert main(["rm", "small"]) == 0
        told = "dgemma-engine: an engine still has it in memory; to end it, run: dgemma-engine stop --model small\n"
        assert capsys.readouterr() == ("small: removed\n", told if is_held else "")


def test_pull_of_the_bundled_model_reports_that_it_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", "tiny"]) == 0
    assert capsys.readouterr().out == "tiny: nothing to fetch: it comes with this package\n"


@pytest.mark.parametrize("name", ["dreamon", "diffusiongemma"])
def test_short_name_means_the_folder_of_the_name_at_the_hub(
    data: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short name and the name at the hub mean the same folder, wherever a model can be named."""
    pulled, entry = list[str](), CATALOGUE[name]
    monkeypatch.setattr(pull, "_pull_from_hub", lambda hub, *, as_json: pulled.append(f"{hub}{as_json}") or 0)
    assert main(["pull", name]) == main(["pull", name, "--json"]) == 0
    assert pulled == [f"{entry.repo}False", f"{entry.repo}True"]
    with pytest.raises(WrongUsage, match=f"the model {name} is not there yet; run: dgemma-engine pull {name}"):
        require_model(name)
    hub = HubName.parse(entry.repo)
    assert hub is not None
    folder = ModelStore.locate({"XDG_DATA_HOME": str(data)}).hub_folder(hub)
    folder.mkdir(parents=True)
    (folder / PULLED).write_text(json.dumps({"name": entry.repo, "commit": "0" * 40, "licence": "x"}))
    require_model(name)
    assert model_folder(name) == model_folder(entry.repo) == folder
    assert model_name(folder) == name
    assert choose_model(name, {"XDG_DATA_HOME": str(data)}).missing is None
    assert main(["models"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if str(folder) in line]
    assert line.split()[0] == name
    assert main(["rm", name]) == 0
    assert capsys.readouterr().out == f"{name}: removed\n"
    assert not folder.exists()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_in_bytes() -> None:
    for stream, expected in (
        (io.StringIO(), "m: 1.0 of 10.0 MB\nm: 6.0 of 10.0 MB, 2.5 MB/s\nm: 10.0 of 10.0 MB, 3.0 MB/s\n"),
        (Terminal(), "\r[##......................] m: 1.0 of 10.0 MB\x1b[K"),
    ):
        seconds = iter([0.0, 1.0, 2.0, 3.0])
        bar = ProgressBar("m", 10_000_000, stream, lambda seconds=seconds: next(seconds))
        for num_bytes in (0, 1_000_000, 1_000_001, 6_000_000, 10_000_000):
            bar.update(num_bytes)
        bar.close()
        assert stream.getvalue().startswith(expected)


def test_catalogue_names_are_their_keys() -> None:
    assert all(name == entry.name for name, entry in CATALOGUE.items())
    for entry in CATALOGUE.values():
        # A model in packages that is at the hub as well is one file.
        assert bool(entry.wheels) + bool(entry.repo) + bool(entry.source) == 1 + (entry.name == "coder")
        assert bool(entry.wheels) == (entry.file is not None)
        if entry.wheels and entry.repo:
            assert entry.file is not None and entry.repo.endswith(f":{entry.file.name}")
            assert sum(wheel.model_bytes for wheel in entry.wheels) == entry.num_bytes
