from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from dgemma_engine.engine_client.connection import EngineConnection
from dgemma_engine.engine_client.connection_status import ConnectionState, ConnectionStatus
from dgemma_engine.engine_client.retry_policy import RetryPolicy
from dgemma_engine.errors import NotNow, OutOfReach
from dgemma_engine.ipc.client import EngineFault, EngineUnavailable, NoEngine
from dgemma_engine.protocol.definition_messages import Definitions, DefinitionsQuery
from dgemma_engine.protocol.messages import Context, Draft, Infill
from dgemma_engine.protocol.status_messages import EngineState, Progress

from tests.lsp.fake_engine import FakeConnector, FakeEngine
from tests.lsp.waiting import until

ENDED = "the engine has ended; the next request looks for another"
FAST = RetryPolicy(connect_ms=200, grace_ms=0, first_pause_s=1, longest_pause_s=4)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Linked:
    def __init__(self, fake: FakeConnector, policy: RetryPolicy = FAST) -> None:
        self.fake = fake
        self.clock = Clock()
        self.told: list[ConnectionStatus] = []
        self.link = EngineConnection(
            fake.connect, on_status=self.told.append, on_fault=self.told.append, clock=self.clock, policy=policy
        )

    async def ask(self, prefix: str = "x", deadline_ms: float = 1_000) -> Infill | ConnectionStatus:
        return await self.link.infill(Context(document="d", prefix=prefix, suffix="", deadline_ms=deadline_ms))

    def states(self) -> list[ConnectionState]:
        return [status.state for status in self.told]


async def test_first_request_connects_and_is_answered():
    linked = Linked(FakeConnector(answers={"x": "y"}))
    assert linked.fake.attempts == 0
    answer = await linked.ask()
    assert isinstance(answer, Infill)
    assert answer.text == "y"
    assert linked.states() == [ConnectionState.STARTING, ConnectionState.READY]


async def test_requests_at_once_share_one_connection():
    linked = Linked(FakeConnector(answers={"x": "y"}))
    await asyncio.gather(*(linked.ask() for _ in range(5)))
    assert linked.fake.attempts == 1


async def test_loading_answers_with_its_progress_then_with_text():
    linked = Linked(FakeConnector(answers={"x": "y"}, loading=(10, 60), loading_step_s=0.02))
    answer = await linked.ask()
    assert answer == ConnectionStatus(state=ConnectionState.LOADING, message="reading weights", percent=10)
    await until(lambda: linked.link.status.state is ConnectionState.READY)
    assert isinstance(await linked.ask(), Infill)
    assert [status.percent for status in linked.told] == [0, 10, 60, 100]


async def test_failures_pause_longer_each_time_and_are_reported_once():
    linked = Linked(FakeConnector(failures=3, answers={"x": "y"}))
    for attempts, pause_s in ((1, 1), (2, 2), (3, 4)):
        answer = await linked.ask()
        assert isinstance(answer, ConnectionStatus)
        assert answer.state is ConnectionState.FAILED
        await linked.ask()
        assert linked.fake.attempts == attempts, "no attempt within the pause"
        linked.clock.now_s += pause_s - 0.1
        await linked.ask()
        assert linked.fake.attempts == attempts
        linked.clock.now_s += 0.1
    assert isinstance(await linked.ask(), Infill)


async def test_engine_that_dies_on_a_request_is_reported_and_replaced():
    linked = Linked(FakeConnector(answers={"x": "y"}))
    answer = await linked.ask("DIE")
    assert answer == ConnectionStatus(state=ConnectionState.FAILED, message=ENDED)
    await until(lambda: linked.link.status.state is ConnectionState.READY)
    assert linked.fake.attempts == 2, "a request had failed, so it connects without waiting for the next one"
    assert isinstance(await linked.ask(), Infill)


async def test_engine_that_dies_on_every_request_is_not_restarted_in_a_loop():
    linked = Linked(FakeConnector())
    for _ in range(20):
        await linked.ask("DIE")
    assert linked.fake.attempts == 2


async def test_engine_that_ends_while_idle_is_not_restarted_before_the_next_request():
    linked = Linked(FakeConnector(answers={"x": "y"}))
    await linked.ask()
    linked.fake.engines[0]._on_closed()
    await asyncio.sleep(0)
    assert linked.link.status == ConnectionStatus(state=ConnectionState.DISCONNECTED, message=ENDED)
    assert linked.fake.attempts == 1
    assert isinstance(await linked.ask(), Infill)


async def test_fault_is_reported_and_the_connection_stays():
    linked = Linked(FakeConnector(answers={"x": "y"}))
    answer = await linked.ask("FAULT")
    assert answer == ConnectionStatus(state=ConnectionState.FAILED, message="out of memory; use a smaller model")
    assert isinstance(await linked.ask(), Infill)
    assert linked.fake.attempts == 1


async def test_engine_that_does_not_answer_in_time_is_given_up():
    linked = Linked(FakeConnector())
    answer = await linked.ask("SLOW", deadline_ms=20)
    assert isinstance(answer, ConnectionStatus)
    assert "did not answer in time" in answer.message


async def test_cancelling_a_request_cancels_the_work():
    events: list[str] = []
    linked = Linked(FakeConnector(record=events.append))
    task = asyncio.create_task(linked.ask("SLOW"))
    await until(lambda: "asked SLOW" in events)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert events[-1] == "cancelled SLOW"


async def test_unexpected_error_becomes_a_status():
    class Broken(FakeEngine):
        async def infill(self, context: Context, on_draft: Callable[[Draft], None] | None = None) -> Infill:
            raise RuntimeError("user text")

    async def connect(*, on_progress: Callable[[Progress], None], on_closed: Callable[[], None]) -> FakeEngine:
        return Broken()

    link = EngineConnection(connect, on_status=lambda _: None, on_fault=lambda _: None, clock=Clock(), policy=FAST)
    answer = await link.infill(Context(document="d", prefix="x", suffix=""))
    assert answer == ConnectionStatus(
        state=ConnectionState.FAILED, message="a request to the engine failed (RuntimeError)"
    )


async def test_model_that_cannot_load_is_reported_and_its_connection_dropped():
    engine = FakeEngine()

    async def connect(*, on_progress: Callable[[Progress], None], on_closed: Callable[[], None]) -> FakeEngine:
        on_progress(Progress(state=EngineState.FAILED, percent=0, message="/m: no config.json"))
        return engine

    link = EngineConnection(connect, on_status=lambda _: None, on_fault=lambda _: None, clock=Clock(), policy=FAST)
    answer = await link.infill(Context(document="d", prefix="x", suffix=""))
    assert answer == ConnectionStatus(state=ConnectionState.FAILED, message="/m: no config.json")
    assert engine.closed


async def test_definitions_are_requested_from_a_connected_engine_only():
    linked = Linked(FakeConnector())
    query = DefinitionsQuery(text="def f(a): ...", names=("f", "g"))
    assert await linked.link.definitions(query) is None
    assert linked.fake.attempts == 0, "looking for context starts no engine"
    await linked.ask()
    assert await linked.link.definitions(query) == Definitions(texts={"f": "def f(a): ..."})


@pytest.mark.parametrize("fault", [EngineFault("Method Not Found"), EngineUnavailable("it has ended")])
async def test_engine_that_refuses_definitions_is_no_fault(fault: Exception, monkeypatch: pytest.MonkeyPatch):
    linked = Linked(FakeConnector())
    await linked.ask()

    async def refuse(self: FakeEngine, query: DefinitionsQuery) -> Definitions:
        raise fault

    monkeypatch.setattr(FakeEngine, "definitions", refuse)
    told = len(linked.told)
    assert await linked.link.definitions(DefinitionsQuery(text="", names=("f",))) is None
    assert len(linked.told) == told


async def test_close_while_connecting_ends_quietly():
    async def connect(*, on_progress: Callable[[Progress], None], on_closed: Callable[[], None]) -> FakeEngine:
        await asyncio.sleep(60)
        raise AssertionError

    link = EngineConnection(connect, on_status=lambda _: None, on_fault=lambda _: None, clock=Clock(), policy=FAST)
    link.wake()
    await asyncio.sleep(0)
    await link.close()
    link.wake()
    assert isinstance(await link.infill(Context(document="d", prefix="x", suffix="")), ConnectionStatus)


async def test_close_before_connecting_starts_nothing():
    async def connect(*, on_progress: Callable[[Progress], None], on_closed: Callable[[], None]) -> FakeEngine:
        raise AssertionError

    link = EngineConnection(connect, on_status=lambda _: None, on_fault=lambda _: None, clock=Clock(), policy=FAST)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        link.wake()
        await link.close()
        gc.collect()  # a coroutine that nobody awaits warns when it is freed
    assert not warned
    await asyncio.wait_for(link.settled(60_000), timeout=30)


def test_policy_refuses_a_shrinking_pause():
    with pytest.raises(ValueError, match=r"self\.longest_pause_s=0\.5"):
        RetryPolicy(first_pause_s=1, longest_pause_s=0.5)


async def test_missing_engine_that_may_not_be_started_is_absent_and_no_failure():
    async def connect(**_hooks: object) -> FakeEngine:
        raise NoEngine("no engine answers; start one with: dgemma-engine start")

    told: list[ConnectionStatus] = []
    link = EngineConnection(connect, on_status=told.append, on_fault=told.append, clock=Clock(), policy=FAST)
    answer = await link.infill(Context(document="d", prefix="x", suffix=""))
    assert isinstance(answer, ConnectionStatus)
    assert answer.state is ConnectionState.ABSENT
    assert [status.state for status in told] == [ConnectionState.STARTING, ConnectionState.ABSENT]


async def test_engine_that_is_back_is_found_within_the_pause_of_an_absent_one():
    attempts: list[float] = []
    clock = Clock()

    async def connect(**_hooks: object) -> FakeEngine:
        attempts.append(clock())
        raise OutOfReach("gpu.lan does not answer")

    policy = RetryPolicy(first_pause_s=1, longest_pause_s=60, longest_absent_pause_s=8)
    link = EngineConnection(connect, on_status=lambda _: None, on_fault=lambda _: None, clock=clock, policy=policy)
    for _ in range(40):
        await link.infill(Context(document="d", prefix="x", suffix=""))
        clock.now_s += 1
    assert attempts == [0, 1, 3, 7, 15, 23, 31, 39]


async def test_settled_waits_until_the_engine_is_loaded():
    linked = Linked(FakeConnector(answers={"x": "y"}, loading=(10, 60), loading_step_s=0.02))
    await linked.link.settled(5_000)
    assert linked.link.status.state is ConnectionState.READY
    assert isinstance(await linked.ask(), Infill)


async def test_settled_waits_no_longer_than_it_may_nor_for_what_has_failed():
    slow = Linked(FakeConnector(loading=(10,), loading_step_s=30.0))
    await asyncio.wait_for(slow.link.settled(20), 5)
    assert slow.link.status.state is ConnectionState.LOADING
    failing = Linked(FakeConnector(failures=9))
    await asyncio.wait_for(failing.link.settled(60_000), 5)
    assert failing.link.status.state is ConnectionState.FAILED


async def test_about_describes_the_engine_and_starts_none():
    linked = Linked(FakeConnector())
    assert await linked.link.about() is None
    await linked.ask()
    about = await linked.link.about()
    assert about is not None and about.model == "large"


async def test_reconfigured_connection_uses_the_other_engine_and_closes_the_first():
    linked, other = Linked(FakeConnector(answers={"x": "y"})), FakeConnector(answers={"x": "z"})
    await linked.ask()
    linked.link.reconfigure(other.connect)
    assert linked.link.status.state is ConnectionState.DISCONNECTED
    answer = await linked.ask()
    assert isinstance(answer, Infill) and answer.text == "z"
    assert linked.fake.engines[0].closed
    assert (linked.fake.attempts, other.attempts) == (1, 1)


@pytest.mark.parametrize("first", [FakeConnector(loading=(10,), loading_step_s=30.0), FakeConnector(failures=9)])
async def test_reconfiguring_while_loading_or_after_a_failure_begins_anew(first: FakeConnector):
    other = FakeConnector(answers={"x": "z"})
    linked = Linked(first)
    settling = asyncio.create_task(linked.link.settled(30_000))
    await until(lambda: len(linked.told) > 1)
    linked.link.reconfigure(other.connect)
    await asyncio.wait_for(settling, 5)
    assert isinstance(await linked.ask(), Infill)


@pytest.mark.parametrize("closes", [False, True])
async def test_request_that_ends_with_the_old_connection_is_no_fault(closes: bool):
    asked: list[str] = []
    linked = Linked(FakeConnector(record=asked.append))
    asking = asyncio.create_task(linked.ask("SLOW", deadline_ms=60_000))
    await until(lambda: "asked SLOW" in asked)
    if closes:
        await linked.link.close()
    else:
        linked.link.reconfigure(FakeConnector().connect)
    answer = await asyncio.wait_for(asking, 5)
    assert isinstance(answer, ConnectionStatus)
    expected = "the server is shutting down" if closes else "the settings of the engine have changed; ask again"
    assert answer.message == expected
    assert ConnectionState.FAILED not in linked.states()


class SilentMachine:
    """Is out of reach for the first request; the second one fails when the connection is closed."""

    def __init__(self) -> None:
        self.num_asked, self.closed = 0, asyncio.Event()

    async def infill(self, context: Context, on_draft: object = None) -> Infill:
        self.num_asked += 1
        if self.num_asked == 1:
            await asyncio.sleep(0.01)
            raise OutOfReach("gpu.lan does not answer")
        await self.closed.wait()
        raise EngineUnavailable("the connection to gpu.lan is closed")

    async def close(self) -> None:
        self.closed.set()


async def test_machine_out_of_reach_is_one_state_for_all_requests_and_no_fault():
    machine, states, faults = SilentMachine(), list[ConnectionStatus](), list[ConnectionStatus]()

    async def connect(*, on_progress: Callable[[Progress], None], on_closed: Callable[[], None]) -> Any:
        return machine

    link = EngineConnection(connect, on_status=states.append, on_fault=faults.append, clock=Clock(), policy=FAST)
    both = [link.infill(Context(document=name, prefix="x", suffix="", deadline_ms=1_000)) for name in "ab"]
    silent = ConnectionStatus(state=ConnectionState.ABSENT, message="gpu.lan does not answer")
    assert await asyncio.gather(*both) == [silent, silent]
    assert states[-1] == silent and faults == []


async def test_busy_machine_is_no_failure_of_the_connection():
    async def connect(*, on_progress: Callable[[Progress], None], on_closed: Callable[[], None]) -> Any:
        raise NotNow("gpu.lan has too much to do")

    states = list[ConnectionStatus]()
    link = EngineConnection(connect, on_status=states.append, on_fault=states.append, clock=Clock(), policy=FAST)
    answer = await link.infill(Context(document="d", prefix="x", suffix="", deadline_ms=1_000))
    assert answer == ConnectionStatus(state=ConnectionState.ABSENT, message="gpu.lan has too much to do")
