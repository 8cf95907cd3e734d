from __future__ import annotations

import signal
import subprocess
import sys

import pytest

RUN = """
import time
from dgemma_engine.tools.training.signals import first_signal

interrupted = first_signal()
print("started", flush=True)
while not interrupted():
    time.sleep(0.01)
print("interrupted", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM: not checked")
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_of_either_kind_ends_a_run_at_once(first: signal.Signals, second: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(first)
        assert process.stdout.readline() == "interrupted\n"
        process.send_signal(second)
        assert process.wait(30) == -second
