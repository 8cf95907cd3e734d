"""Settings that reach an engine which the server starts, and the report of the first request."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.errors import EngineUnavailable

from dgemma_lsp.engine_client.connector import engine_connector, first_request
from dgemma_lsp.settings.settings import Settings


@pytest.mark.skipif(sys.platform == "win32", reason="no engine is started on Windows: nothing was checked")
async def test_engine_is_started_with_the_minutes_until_it_unloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dgemma_engine.ipc.client import EngineClient

    monkeypatch.setenv("DGEMMA_RUNTIME_DIR", str(tmp_path))
    asked = list[dict[str, Any]]()

    async def start(_location: object, **options: Any) -> None:
        asked.append(options)

    monkeypatch.setattr(EngineClient, "attach_or_start", start)
    connect = engine_connector(Settings(engine_model="tiny", engine_idle_unload_minutes=7))
    await connect(on_progress=lambda _progress: None, on_closed=lambda: None)
    assert [one["unload_minutes"] for one in asked] == [7]


@pytest.mark.skipif(sys.platform == "win32", reason="no engine is started on Windows: nothing was checked")
@pytest.mark.parametrize(
    ("model", "message"),
    [("smal", "smal: no such model; did you mean small?"), ("folder", "folder: no such folder or GGUF file; name a ")],
)
async def test_name_of_no_model_is_refused_as_it_was_written(
    model: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGEMMA_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.chdir(tmp_path)
    connect = engine_connector(Settings(engine_model=model))
    with pytest.raises(EngineUnavailable) as refused:
        await connect(on_progress=lambda _progress: None, on_closed=lambda: None)
    assert str(refused.value).startswith(message)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (Settings(), "the first request starts the engine"),
        (Settings(engine_autostart=False), "the first request connects to an engine that runs; none is started"),
        (Settings(engine_url="https://gpu.example:8012"), "the first request connects to gpu.example:8012"),
        (Settings(engine_url="https://kim:secret@gpu"), "the first request connects to engine.url"),
    ],
)
def test_first_request_is_reported_as_it_is(settings: Settings, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert first_request(settings).startswith(sentence)


def test_first_request_starts_nothing_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert "the engine does not run on Windows itself" in first_request(Settings())
    assert first_request(Settings(engine_url="http://127.0.0.1:8012")).endswith("connects to 127.0.0.1:8012")
