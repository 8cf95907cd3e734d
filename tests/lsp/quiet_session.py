"""A session over an engine without a model, whose messages to the editor are dropped."""

from __future__ import annotations

import time
from pathlib import Path

from dgemma_engine.model_store.choice import ModelChoice

from dgemma_lsp.metrics.recorder import StatsRecorder
from dgemma_lsp.metrics.store import StatsFile
from dgemma_lsp.session import Session
from tests.lsp.fake_engine import FakeConnector


class Silent:
    """Drops every message."""

    def publish(self, status: object) -> None: ...
    def error(self, message: str) -> None: ...
    def warning(self, message: str) -> None: ...


def quiet_session(home: Path, connector: FakeConnector) -> Session:
    """Returns a session that keeps its counts below `home`."""
    recorder = StatsRecorder(StatsFile(home / "state"), clock=time.monotonic, today=lambda: "2026-11-22")
    return Session(
        lambda _: connector.connect,
        lambda settings: ModelChoice(runs=settings.engine_model),
        clock=time.monotonic,
        notifier=Silent(),
        recorder=recorder,
        home=home,
    )
