"""Running engines are found by their locks, which this process holds, and selected by name."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.lock_file import EngineLock
from dgemma_engine.ipc.running_engines import add_selection, running_engines, selected_engines

from tests.lsp.engine_process import STATUS_NOW

MODEL = Path("m odel")


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Locks held for `tiny` on two devices, `small`, and a folder."""
    environ = {"DGEMMA_RUNTIME_DIR": str(tmp_path / "run"), "XDG_DATA_HOME": str(tmp_path)}
    with ExitStack() as held:
        for model, device in (("tiny", "auto"), ("tiny", "cuda:1"), ("small", "cpu"), (str(tmp_path / MODEL), "auto")):
            location = EngineLocation.locate(environ, model=model, device=device)
            location.prepare()
            held.enter_context(EngineLock.acquire(location.lock) or pytest.fail())
        free = EngineLocation.locate(environ, model="small")
        free.lock.touch()
        yield environ


def selected(environ: dict[str, str], *options: str) -> list[tuple[str, str]]:
    parser = argparse.ArgumentParser()
    add_selection(parser)
    found = selected_engines(parser.parse_args(options), environ)
    assert all(engine.pid == os.getpid() for engine in found)
    return [(engine.location.model, engine.location.device) for engine in found]


def test_running_engines_are_those_whose_lock_is_held(environ: dict[str, str]) -> None:
    assert selected(environ) == [("", "auto"), ("small", "cpu"), ("tiny", "auto"), ("tiny", "cuda:1")]
    shutil.rmtree(environ["DGEMMA_RUNTIME_DIR"])
    assert running_engines(environ) == []


def test_options_select_by_model_on_any_device_and_by_device(environ: dict[str, str], tmp_path: Path) -> None:
    assert selected(environ, "--model", "tiny") == [("tiny", "auto"), ("tiny", "cuda:1")]
    assert selected(environ, "--model", "tiny", "--device", "cuda:1") == [("tiny", "cuda:1")]
    assert selected(environ, "--model", "small", "--device", "auto") == []
    assert selected(environ, "--model", str(tmp_path / MODEL)) == [(str(tmp_path / MODEL), "auto")]
    # The default model, which is `tiny` until the default is downloaded.
    assert selected(environ, "--device", "auto") == [("tiny", "auto")]


def test_engine_of_a_folder_is_named_by_its_answer(environ: dict[str, str], tmp_path: Path) -> None:
    engine = running_engines(environ)[0]
    assert engine.stop_command == "dgemma-engine stop --all"
    assert str(engine) == f"a model without a short name (pid {os.getpid()})"
    other = engine.named(replace(STATUS_NOW, model="m", model_path="/elsewhere"))
    assert other == engine
    path = tmp_path / MODEL
    named = engine.named(replace(STATUS_NOW, model=path.name, model_path=str(path)))
    assert named.stop_command == f"dgemma-engine stop --model '{path}'"
    assert named.location.lock == engine.location.lock
