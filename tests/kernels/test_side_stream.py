"""Work on a second stream starts after earlier launches, and later launches wait for it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import pytest
import torch
from dgemma_kernels.launch import side_stream
from dgemma_kernels.launch.launch_table import read

CARD = torch.device("cuda", 1)
TABLE = read("sm_90").changed({"pass": {"ROUTE_BESIDE": 1}})


class Stream:
    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def wait_stream(self, other: Stream) -> None:
        self.log.append(f"{self.name} waits for {other.name}")


class Cuda:
    """Replaces the calls of `torch.cuda` that choose streams, and logs each launch with its stream."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.current = Stream("main", self.log)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: self.current)
        monkeypatch.setattr(torch.cuda, "stream", self.on_stream)
        monkeypatch.setattr(torch.cuda, "Stream", lambda _device: Stream("second", self.log))
        side_stream._second.cache_clear()  # type: ignore[reportPrivateUsage]

    @contextmanager
    def on_stream(self, stream: Stream) -> Generator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def launch(self, what: str) -> str:
        self.log.append(f"{what} on {self.current.name}")
        return what


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Generator[Cuda]:
    yield Cuda(monkeypatch)
    side_stream._second.cache_clear()  # type: ignore[reportPrivateUsage]


def test_second_stream_starts_after_the_first_and_is_joined(cuda: Cuda) -> None:
    found = side_stream.beside(lambda: cuda.launch("route"), lambda: cuda.launch("mlp"), CARD, table=TABLE)
    cuda.launch("experts")
    assert found == ("route", "mlp")
    assert cuda.log == [
        "second waits for main", "route on second", "mlp on main", "main waits for second", "experts on main",
    ]  # fmt: skip


@pytest.mark.parametrize("device", [CARD, torch.device("cpu")])
def test_one_stream_if_the_table_does_not_ask_for_two(cuda: Cuda, device: torch.device) -> None:
    table = TABLE if device.type == "cpu" else read("sm_90")
    side_stream.beside(lambda: cuda.launch("route"), lambda: cuda.launch("mlp"), device, table=table)
    assert cuda.log == ["route on main", "mlp on main"]


@pytest.mark.parametrize("failing", ["route", "mlp"])
def test_failure_leaves_the_streams_joined(cuda: Cuda, failing: str) -> None:
    def run(what: str) -> None:
        if what == failing:
            raise RuntimeError(what)

    with pytest.raises(RuntimeError, match=failing):
        side_stream.beside(lambda: run("route"), lambda: run("mlp"), CARD, table=TABLE)
    assert cuda.log[-1] == "main waits for second" and cuda.current.name == "main"
