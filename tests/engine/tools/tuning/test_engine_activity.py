from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.tools.tuning.engine_activity import EngineActivity


def test_engine_that_used_processor_time_is_active() -> None:
    used_s = {1: 5.0, 2: 7.0}
    activity = EngineActivity(lambda: list(used_s), used_s.get)
    assert not activity(), "the first reading has no earlier one to compare with"
    assert not activity()
    used_s[1] += 0.01
    assert not activity(), "an idle engine uses some processor time"
    used_s[2] += 0.3
    assert activity() and not activity()


def test_engine_that_starts_or_ends_is_not_active() -> None:
    used_s: dict[int, float] = {}
    activity = EngineActivity(lambda: [1, 2], used_s.get)
    assert not activity()
    used_s[1] = 30.0
    assert not activity()
    del used_s[1]
    assert not activity()


WORKER = """
import sys, time
from pathlib import Path
from dgemma_engine.ipc.lock_file import EngineLock
lock = EngineLock.acquire(Path(sys.argv[1]))
print("locked", flush=True)
for line in sys.stdin:
    end_s = time.process_time() + 0.2
    while time.process_time() < end_s:
        pass
    print("worked", flush=True)
"""


def test_processor_time_of_the_process_that_holds_the_lock_is_read(tmp_path: Path) -> None:
    environ = os.environ | {"DGEMMA_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    for model in ("tiny", "small"):
        location = EngineLocation.locate(environ, model=model)
        location.prepare()
        command = [sys.executable, "-c", WORKER, str(location.lock)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdout.readline()
            activity = EngineActivity.of_user(environ)
            assert not activity()
            time.sleep(0.2)
            assert not activity(), "the process is idle"
            process.stdin.write("work\n")
            process.stdin.flush()
            process.stdout.readline()
            assert activity()
            process.stdin.close()
        assert not activity()


def test_no_engine_is_no_activity(tmp_path: Path) -> None:
    assert not EngineActivity.of_user({"DGEMMA_RUNTIME_DIR": str(tmp_path / "none")})()
    assert not EngineActivity.of_user({"DGEMMA_RUNTIME_DIR": "/" + "x" * 200})()
