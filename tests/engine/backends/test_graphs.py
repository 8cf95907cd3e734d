"""When work is run, captured and replayed."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from dgemma_engine.backends.cuda.graphs import CudaCapture, Graphs, Work, repeat


class Recorder:
    """Records captured work, and replays it by running it again."""

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
    assert done == ["first", "second", "second", "second"], "a replay runs the captured work"
    assert len(capture.captured) == graphs.num_captured == 1


def test_each_key_has_its_graph_and_the_oldest_is_dropped() -> None:
    capture = Recorder()
    graphs = Graphs(capture, most=2)
    for key in ("a", "a", "b", "b", "a", "c", "b", "b"):
        graphs.run(key, lambda: None)
    # `c` displaced `b`, which is then captured a second time.
    assert graphs.num_captured == 3


def test_cleared_graphs_are_captured_anew() -> None:
    graphs = Graphs(repeat)
    for _ in range(2):
        graphs.run("key", lambda: None)
    graphs.clear()
    for _ in range(2):
        graphs.run("key", lambda: None)
    assert graphs.num_captured == 2


def test_limit_of_zero_captures_nothing() -> None:
    done: list[int] = []
    graphs = Graphs(repeat, most=0)
    for number in range(3):
        graphs.run("key", lambda number=number: done.append(number))
    assert done == [0, 1, 2] and graphs.num_captured == 0
    with pytest.raises(ValueError, match="must not be negative"):
        Graphs(repeat, most=-1)


def test_work_that_cannot_be_captured_runs_and_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
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


class FakeStream:
    """Records the streams that it waited for."""

    def __init__(self) -> None:
        self.waited_for: list[FakeStream] = []

    def wait_stream(self, other: FakeStream) -> None:
        self.waited_for.append(other)


class FakeCuda:
    """The calls of `torch.cuda` that a capture makes, with the rules that a real capture has."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.main = self.current = FakeStream()
        self.pools, self.used_pools, self.capturing = 0, list[int](), False
        fakes: dict[str, Any] = {
            "device": lambda _device: nullcontext(), "Stream": FakeStream, "stream": self.on_stream,
            "current_stream": lambda: self.current, "graph_pool_handle": self.new_pool, "CUDAGraph": lambda: self,
        }  # fmt: skip
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)

    @contextmanager
    def on_stream(self, stream: FakeStream) -> Generator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def new_pool(self) -> int:
        self.pools += 1
        return self.pools

    def capture_begin(self, *, pool: int, capture_error_mode: str) -> None:
        assert self.current is not self.main, "the default stream cannot be captured"
        assert not self.capturing and capture_error_mode == "thread_local"
        self.capturing = True
        self.used_pools.append(pool)

    def capture_end(self) -> None:
        assert self.capturing
        self.capturing = False

    def replay(self) -> None:
        pass


def test_capture_leaves_the_stream_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    capture, streams = CudaCapture(torch.device("cuda", 1)), list[FakeStream]()
    for _ in range(2):
        assert capture(lambda: streams.append(cuda.current)) == cuda.replay
        assert cuda.current is cuda.main and not cuda.capturing
    assert cuda.main not in streams and streams[0].waited_for == [cuda.main] * 2
    assert cuda.used_pools == [1, 1]


def test_capture_that_fails_leaves_the_stream_as_it_was_and_takes_a_new_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    capture, streams = CudaCapture(torch.device("cuda", 1)), list[FakeStream]()

    def refuse() -> None:
        streams.append(cuda.current)
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="not permitted"):
        capture(refuse)
    assert cuda.current is cuda.main and not cuda.capturing
    capture(lambda: streams.append(cuda.current))
    assert cuda.used_pools == [1, 2] and streams[0] is not streams[1]
