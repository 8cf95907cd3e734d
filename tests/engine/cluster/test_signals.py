"""Signals to this process, as `serve --ray` gets them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from dgemma_engine.cluster.signals import Signals

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture
def signals() -> Iterator[Signals]:
    before = {number: signal.getsignal(number) for number in HANDLED}
    yield Signals()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_end_that_was_asked_for_before_the_wait_ends_it(signals: Signals, number: signal.Signals) -> None:
    assert not signals.is_ended
    os.kill(os.getpid(), number)
    assert signals.is_ended
    assert signals.wait() is False


def test_sighup_asks_for_one_reload(signals: Signals) -> None:
    os.kill(os.getpid(), signal.SIGHUP)
    assert signals.wait() is True
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.wait() is False


def test_end_takes_precedence_over_a_reload(signals: Signals) -> None:
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.wait() is False
