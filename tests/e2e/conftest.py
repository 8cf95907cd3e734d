"""Real engines in a directory of their own, stopped when the tests end."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation


@pytest.fixture(scope="module")
def runtime() -> Iterator[Path]:
    """Sets the directory for sockets, short enough for any system, and ends every engine in it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="dgemma-"))
    before = os.environ.get("DGEMMA_RUNTIME_DIR")
    os.environ["DGEMMA_RUNTIME_DIR"] = str(folder)
    yield folder
    if before is None:
        del os.environ["DGEMMA_RUNTIME_DIR"]
    else:
        os.environ["DGEMMA_RUNTIME_DIR"] = before
    for process in engines(folder):
        process.kill()
        process.wait(10)
    shutil.rmtree(folder)


def engines(runtime: Path) -> list[psutil.Process]:
    """Returns the engine processes that serve from `runtime`."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if "dgemma_engine" in process.cmdline() and process.environ().get("DGEMMA_RUNTIME_DIR") == str(runtime):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def embedded() -> Path:
    return model_folder("tiny")


@pytest.fixture(scope="module")
def endless(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with a sampler that never finishes by itself, so that requests stay in flight."""
    folder = Path(shutil.copytree(embedded, tmp_path_factory.mktemp("model") / "endless"))
    values = {"max_denoising_steps": 1_000_000, "confidence_threshold": 1e-30, "stability_threshold": 100_000}
    (folder / "generation_config.json").write_text(json.dumps(values))
    return folder


@pytest.fixture
async def watcher(runtime: Path, endless: Path) -> AsyncIterator[EngineClient]:
    """A client of its own on the endless engine, to read its step counter."""
    client = await EngineClient.attach_or_start(EngineLocation.locate(os.environ, model=str(endless)))
    await client.wait_ready(60)
    yield client
    await client.close()
