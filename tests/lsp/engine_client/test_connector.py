"""What of the settings reaches an engine that the server starts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from dgemma_lsp.engine_client.connector import engine_connector
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
