from __future__ import annotations

import fcntl
import logging
from pathlib import Path

import pytest

from dgemma_lsp.metrics.recorder import StatsRecorder
from dgemma_lsp.metrics.stats import Source
from dgemma_lsp.metrics.store import StatsFile
from dgemma_lsp.request import Completion

URI = "file:///w/a.py"
COMPLETION = Completion(lead="", inserted="area(width)", start=0, cursor=0, end=0, version=1)


@pytest.fixture
def file(tmp_path: Path) -> StatsFile:
    return StatsFile(tmp_path / "state")


@pytest.fixture
def recorder(file: StatsFile) -> StatsRecorder:
    return StatsRecorder(file, clock=lambda: 0.0, today=lambda: "2026-11-21")


async def test_counts_are_written_at_the_end(file: StatsFile, recorder: StatsRecorder):
    recorder.switch(on=True)
    recorder.offer(URI, "", [COMPLETION])
    recorder.change(URI, "", "area(width)")
    recorder.end()
    assert (file.read().counts["suggestions"], file.read().counts["accepted"]) == (1, 1)
    assert file.read().since == "2026-11-21"


async def test_switched_off_writes_and_remembers_nothing(file: StatsFile, recorder: StatsRecorder):
    assert recorder.offer(URI, "", [COMPLETION]) is None
    recorder.steps_spent(1, speculative=False)
    recorder.flush()
    recorder.end()
    assert not file.path.parent.exists()


async def test_switching_off_forgets_what_was_not_written(file: StatsFile, recorder: StatsRecorder):
    recorder.switch(on=True)
    recorder.steps_spent(1, speculative=False)
    recorder.switch(on=False)
    recorder.end()
    assert not file.path.parent.exists()


async def test_busy_file_is_written_later(file: StatsFile, recorder: StatsRecorder):
    recorder.switch(on=True)
    recorder.steps_spent(1, speculative=False)
    file.path.parent.mkdir(parents=True)
    with file.path.with_name("stats.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        recorder.flush()
    assert not file.read()
    recorder.flush()
    assert file.read().counts["steps"] == 1


async def test_folder_that_cannot_be_made_is_reported_once(
    tmp_path: Path, recorder: StatsRecorder, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "state").write_text("a file in the way")
    recorder.switch(on=True)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            recorder.steps_spent(1, speculative=False)
            recorder.flush()
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == ["counts cannot be kept"]


async def test_session_counts_go_on_while_switched_off(recorder: StatsRecorder):
    recorder.answered(Source.ENGINE, shown=True, total_ms=1.0, timings_ms={})
    recorder.steps_spent(4, speculative=False)
    recorder.steps_spent(3, speculative=True)
    recorder.steps_used(4, speculative=False, shown=False)
    recorder.steps_used(3, speculative=True, shown=True)
    recorder.count(superseded=1)
    counts = recorder.session_counts()
    assert counts.pop("sources") == {"typed_through": 0, "store": 0, "flight": 0, "engine": 1, "not_asked": 0}
    assert counts == {
        "superseded": 1,
        "offered": 1,
        "steps": 4,
        "speculative_steps": 3,
        "steps_used": 4,
        "speculative_steps_used": 3,
        "adopted": 0,
        "prepared": 0,
        "prepared_used": 1,
    }
