"""An idle model on a GPU: its memory is freed, the status reports that, and the next request loads the model again."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.errors import CheckpointError, EngineFault
from dgemma_engine.infill.engine import Engine
from dgemma_engine.ipc.launcher import engine_command
from dgemma_engine.protocol.messages import Finish
from dgemma_engine.protocol.status_messages import EngineState, Progress
from dgemma_engine.serving.device_thread import DeviceThread

from tests.engine.fake_engine import PATIENCE_S, SteppingEngine, attach, context, location_in, serving, until

SHORT_S = 0.03


class Card:
    """Loads engines that hold GPU memory, with weak references to them only."""

    def __init__(self, memory_bytes: int = 1) -> None:
        self.memory_bytes = memory_bytes
        self.loaded: list[weakref.ref[SteppingEngine]] = []
        self.error: Exception | None = None

    def load(self, report: Callable[[int, str], None]) -> SteppingEngine:
        if self.error is not None:
            raise self.error
        report(50, "half")
        engine = SteppingEngine(step_s=0.0)
        engine.device_memory_bytes = self.memory_bytes
        # A reference cycle, which the garbage collector never finds if it was frozen after loading.
        engine.fault = RuntimeError(engine)
        self.loaded.append(weakref.ref(engine))
        return engine


class Run:
    """A device thread with a short unload time, and the progress that it reported."""

    def __init__(self, load: Any, unload_s: float | None = SHORT_S) -> None:
        self.progress: list[Progress] = []
        self.device = DeviceThread(
            load,
            clock=time.monotonic,
            on_progress=self.progress.append,
            on_device_lost=lambda: None,
            unload_s=unload_s,
        )
        self.device.start()

    @property
    def is_resting(self) -> bool:
        return "unloaded" in self.device.progress.message

    def wait_for(self, condition: Callable[[], bool]) -> None:
        give_up_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < give_up_s, "the condition never came true"
            time.sleep(0.002)

    def ask(self) -> str:
        return self.device.submit(1, context("ab", "c", steps=3)).answer.result(PATIENCE_S).text


@pytest.fixture
def card() -> Card:
    return Card()


@pytest.fixture
def run(card: Card) -> Iterator[Run]:
    run = Run(card.load)
    yield run
    run.device.stop()
    assert run.device.join(PATIENCE_S)


def test_idle_model_is_unloaded_and_the_next_request_loads_it(card: Card, run: Run) -> None:
    assert run.ask() == "2|1"
    run.wait_for(lambda: run.is_resting)
    assert run.device.engine is None and card.loaded[0]() is None, "something still holds the model"
    assert run.device.state is EngineState.READY, "a client sends requests to an engine that is ready"
    assert run.device.denoising_steps == 3
    seen = len(run.progress)
    assert run.ask() == "2|1"
    states = [(one.state, one.message) for one in run.progress[seen:]]
    assert states[0] == (EngineState.LOADING, "loading the model again")
    assert (EngineState.READY, "") in states
    assert len(card.loaded) == 2 and run.device.denoising_steps == 6


def test_message_names_the_minutes_and_the_setting() -> None:
    from dgemma_engine.serving.model_release import rest_message

    assert "after 30 minutes without a request" in rest_message(1_800)
    assert "engine.idleUnloadMinutes" in rest_message(1_800)


def test_model_in_main_memory_stays(run: Run) -> None:
    on_processor = Card(memory_bytes=0)
    other = Run(on_processor.load)
    other.ask()
    # Longer than a model on a GPU would stay loaded.
    run.ask()
    run.wait_for(lambda: run.is_resting)
    other.ask()
    assert len(on_processor.loaded) == 1
    other.device.stop()
    assert other.device.join(PATIENCE_S)


def test_without_a_limit_the_model_stays(card: Card, run: Run) -> None:
    never = Run(card.load, unload_s=None)
    never.ask()
    run.ask()
    run.wait_for(lambda: run.is_resting)
    assert never.device.engine is not None
    never.device.stop()
    assert never.device.join(PATIENCE_S)


def test_stop_while_unloaded_ends_the_thread(card: Card) -> None:
    run = Run(card.load)
    run.wait_for(lambda: run.is_resting)
    run.device.stop()
    assert run.device.join(PATIENCE_S)
    assert len(card.loaded) == 1


def test_memory_that_another_program_took_meanwhile_is_reported(card: Card, run: Run) -> None:
    run.wait_for(lambda: run.is_resting)
    card.error = CheckpointError("the model needs 17.1 GiB, cuda:0 has 3.0 GiB free")
    job = run.device.submit(1, context())
    with pytest.raises(EngineFault, match=r"has 3\.0 GiB free"):
        job.answer.result(PATIENCE_S)
    assert run.device.state is EngineState.FAILED


def test_request_that_expires_while_the_model_is_loaded_again_is_answered(card: Card) -> None:
    let_go = threading.Event()

    def load(report: Callable[[int, str], None]) -> SteppingEngine:
        if card.loaded:
            assert let_go.wait(PATIENCE_S)
        return card.load(report)

    run = Run(load)
    run.wait_for(lambda: run.is_resting)
    job = run.device.submit(1, context())
    run.wait_for(lambda: run.device.state is EngineState.LOADING)
    run.device.expire(job)
    assert job.answer.result(PATIENCE_S).finish is Finish.DEADLINE
    let_go.set()
    assert run.ask() == "2|1"
    run.device.stop()
    assert run.device.join(PATIENCE_S)


async def test_clients_are_notified_when_the_model_is_unloaded_and_loaded(tmp_path: Path, card: Card) -> None:
    told = list[Progress]()
    async with (
        serving(tmp_path, card.load, unload_s=SHORT_S) as location,
        await attach(location, on_progress=told.append) as client,
    ):
        await until(lambda: any("unloaded" in one.message for one in told))
        status = await client.status()
        assert status.state is EngineState.READY and "unloaded" in status.message
        assert status.device_memory_bytes == 0
        assert (await client.infill(context("ab", "c"))).text == "2|1"
        await until(lambda: any(one.message == "loading the model again" for one in told))


def test_memory_of_a_real_model_is_freed(make_checkpoint: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "device_memory_bytes", property(lambda _self: 1))
    folder, models = make_checkpoint().folder, list[weakref.ref[Any]]()

    def load(report: Callable[[int, str], None]) -> Engine:
        engine = Engine.load(folder, device="cpu", report=report)
        models.append(weakref.ref(engine._model))  # pyright: ignore[reportPrivateUsage]
        return engine

    run = Run(load)
    run.wait_for(lambda: bool(models))
    run.device.submit(1, context("def f(", ")", steps=4)).answer.result(PATIENCE_S)
    run.wait_for(lambda: run.is_resting)
    assert models[0]() is None, "something still holds the model"
    run.device.stop()
    assert run.device.join(PATIENCE_S)


async def test_status_reports_what_slows_the_engine_down(tmp_path: Path) -> None:
    def load(_report: Callable[[int, str], None]) -> SteppingEngine:
        engine = SteppingEngine()
        engine.notice = "a denoising step takes 10 times as long as it did on cuda:0"
        return engine

    async with serving(tmp_path, load) as location, await attach(location) as client:
        assert (await client.wait_ready(PATIENCE_S)).message.startswith("a denoising step takes 10 times")


def test_engine_reports_a_slow_step(make_checkpoint: Callable[..., Any]) -> None:
    engine = Engine.load(make_checkpoint().folder, device="cpu", report=lambda _percent, _message: None)
    assert engine.notice == ""
    for seconds in (0.01, *[0.2] * 4):
        engine._pipeline.durations.add("step", seconds)  # pyright: ignore[reportPrivateUsage]
    assert engine.notice == "a denoising step takes 10 times as long as it did on cpu"


def test_engine_is_started_with_the_settings_minutes(tmp_path: Path) -> None:
    command = engine_command(location_in(tmp_path), unload_minutes=5)
    assert command[-2:] == ["--idle-unload-minutes", "5"]
    assert "--idle-unload-minutes" not in engine_command(location_in(tmp_path))
