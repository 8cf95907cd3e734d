"""When work is run, captured and replayed."""

from __future__ import annotations

import logging

import pytest
import torch
from dgemma_engine.backends.cuda.graphs import Graphs, Work, repeat


class Recorder:
    """A capture that counts, and repeats what it was first given, whatever comes later."""

    def __init__(self) -> None:
        self.captured: list[Work] = []

    def __call__(self, work: Work) -> Work:
        self.captured.append(work)
        return work


def test_runs_then_captures_then_replays() -> None:
    done: list[str] = []
    capture = Recorder()
    graphs = Graphs(capture)
    for name in ("first", "second", "third", "fourth"):
        graphs.run("key", lambda name=name: done.append(name))
    assert done == ["first", "second", "second", "second"], "replayed is what was captured"
    assert len(capture.captured) == graphs.num_captured == 1


def test_keys_are_apart_and_the_oldest_goes() -> None:
    capture = Recorder()
    graphs = Graphs(capture, most=2)
    for key in ("a", "a", "b", "b", "a", "c", "b", "b"):
        graphs.run(key, lambda: None)
    # `b` had gone when `c` came, and was seen twice again.
    assert graphs.num_captured == 3


def test_cleared_graphs_are_captured_anew() -> None:
    graphs = Graphs(repeat)
    for _ in range(2):
        graphs.run("key", lambda: None)
    graphs.clear()
    for _ in range(2):
        graphs.run("key", lambda: None)
    assert graphs.num_captured == 2


def test_none_kept_is_never_captured() -> None:
    done: list[int] = []
    graphs = Graphs(repeat, most=0)
    for number in range(3):
        graphs.run("key", lambda number=number: done.append(number))
    assert done == [0, 1, 2] and graphs.num_captured == 0
    with pytest.raises(ValueError, match="must not be negative"):
        Graphs(repeat, most=-1)


def test_what_cannot_be_captured_runs_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(work: Work) -> Work:
        raise RuntimeError("operation not permitted when stream is capturing")

    done: list[int] = []
    graphs = Graphs(refuse)
    with caplog.at_level(logging.WARNING):
        for number in range(4):
            graphs.run("key", lambda number=number: done.append(number))
    assert len(done) == 4 and len(caplog.records) == 1 and graphs.num_captured == 0


def test_exhausted_memory_is_not_hidden() -> None:
    def exhaust(work: Work) -> Work:
        raise torch.OutOfMemoryError("CUDA out of memory")

    graphs = Graphs(exhaust)
    graphs.run("key", lambda: None)
    with pytest.raises(torch.OutOfMemoryError):
        graphs.run("key", lambda: None)
