"""A short soak test: mixed traffic in two windows on the real engine, everything answered, nothing in the log."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "engine/bench/server/soak.py"


@pytest.mark.e2e
@pytest.mark.slow
def test_mixed_traffic_is_answered_and_leaves_no_error(tmp_path: Path) -> None:
    command = [sys.executable, str(SOAK), "--minutes", "0.3", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2_000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["requests"] > 10
    assert (result["unanswered"], result["server_log_lines"]) == (0, 0)
    assert result["stale_applied"] == 0
