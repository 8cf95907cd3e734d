"""A replica in this process: the HTTP API over the engine's device thread, called as Ray would, without Ray."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.cluster.arguments import EngineArguments, ReplicaLimits
from dgemma_engine.cluster.replica import Replica
from dgemma_engine.errors import CheckpointError, EngineFault, EngineUnavailable, WrongUsage
from dgemma_engine.protocol.handshake import PROTOCOL
from dgemma_engine.protocol.messages import Context
from dgemma_engine.protocol.remote_messages import INFILL_PATH, QuestionText, envelope

from tests.engine.cluster.asgi_client import ask
from tests.engine.fake_engine import SteppingEngine, until

KEY = "0123456789abcdef"
BODY = {"input_prefix": "x = ", "input_suffix": "\n", "n_predict": 2}


@dataclass
class Meter:
    """Records metrics."""

    counts: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])
    values_ms: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    gauges: dict[str, float] = field(default_factory=dict[str, float])

    def count(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        key = name, ",".join(labels.values())
        self.counts[key] = self.counts.get(key, 0) + amount

    def observe(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        assert name == "dgemma_stage_ms"
        self.values_ms.setdefault(labels["stage"], []).append(value)

    def set(self, name: str, value: float) -> None:
        self.gauges[name] = value


@pytest.fixture
def engine() -> SteppingEngine:
    return SteppingEngine(step_s=0.01)


@pytest.fixture
def meter() -> Meter:
    return Meter()


@pytest.fixture
def ended() -> threading.Event:
    return threading.Event()


Make = Callable[..., Replica]


@pytest.fixture
def make(engine: SteppingEngine, meter: Meter, ended: threading.Event) -> Iterator[Make]:
    made: list[Replica] = []

    def make(arguments: EngineArguments | None = None, limits: ReplicaLimits | None = None) -> Replica:
        replica = Replica(
            arguments or EngineArguments(allow_anyone=True),
            limits or ReplicaLimits(),
            load=lambda _report: engine,
            meter=meter,
            end=ended.set,
        )
        made.append(replica)
        return replica

    yield make
    for replica in made:
        replica.close()
        assert replica.device.join(10)


async def test_request_is_answered_and_counted(make: Make, meter: Meter) -> None:
    replica = make()
    asked = await ask(replica.app, "/infill", BODY)
    assert (asked.status, asked.json["content"]) == (200, "4|1")
    assert meter.counts["dgemma_requests", "stable"] == 1
    assert meter.counts["dgemma_steps", ""] == 2
    assert meter.values_ms.keys() >= {"queue", "denoise", "total"}


async def test_work_ends_when_its_client_disconnects(make: Make, engine: SteppingEngine) -> None:
    replica, leaving = make(), asyncio.Event()
    asking = asyncio.create_task(ask(replica.app, "/infill", BODY | {"n_predict": 256}, leaving=leaving))
    await until(lambda: bool(engine.runs) and engine.runs[0].num_steps > 0)
    leaving.set()
    assert (await asking).status == 0
    await until(lambda: engine.runs[0].ended)
    assert engine.runs[0].num_steps < 256 and engine.runs[0].num_after_cancel <= 1


async def test_model_that_cannot_be_loaded_fails_the_replica_with_the_engines_sentence(meter: Meter) -> None:
    def load(_report: object) -> SteppingEngine:
        raise CheckpointError("the model needs 20.0 GiB, cuda has 12.0 GiB free: lower the context")

    with pytest.raises(EngineUnavailable, match=r"the model needs 20\.0 GiB, cuda has 12\.0 GiB free: lower"):
        Replica(EngineArguments(allow_anyone=True), ReplicaLimits(), load=load, meter=meter, end=lambda: None)


async def test_limits_change_while_the_model_stays(make: Make, engine: SteppingEngine) -> None:
    replica = make(limits=ReplicaLimits(max_middle_tokens=3))
    await ask(replica.app, "/infill", BODY | {"n_predict": 200})
    replica.reconfigure({"max_middle_tokens": 5})
    await ask(replica.app, "/infill", BODY | {"n_predict": 200})
    assert [context.max_middle_tokens for context in engine.seen] == [3, 5]


def test_wrong_first_limits_are_refused(make: Make) -> None:
    with pytest.raises(WrongUsage, match="user_config: Object contains unknown field `most`"):
        make().reconfigure({"most": 1})


async def test_later_limits_that_are_wrong_leave_the_earlier_ones_and_are_reported(
    make: Make, engine: SteppingEngine, meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    replica = make()
    replica.reconfigure({"max_middle_tokens": 5})
    await replica.check_health()
    assert meter.gauges["dgemma_reload_refused"] == 0
    replica.reconfigure({"most": 1})
    assert "the earlier limits and keys stay: user_config: Object contains unknown field `most`" in caplog.text
    assert meter.gauges["dgemma_reload_refused"] == 1
    await replica.check_health()
    await ask(replica.app, "/infill", BODY | {"n_predict": 200})
    assert engine.seen[-1].max_middle_tokens == 5
    replica.reconfigure({"max_middle_tokens": 6})
    assert meter.gauges["dgemma_reload_refused"] == 0


async def test_file_of_keys_that_cannot_be_used_leaves_the_earlier_keys(
    make: Make, meter: Meter, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"ann {KEY}\n")
    replica = make(EngineArguments(api_key_file=str(keys)))
    await replica.check_health()
    keys.write_text(f"ann {KEY}\nbob short\n")
    replica.reconfigure({"max_requests": 4})
    assert "line 2: a key must be 16 to 512" in caplog.text and "short" not in caplog.text
    assert (await ask(replica.app, "/infill", BODY, authorization=f"Bearer {KEY}")).status == 200
    assert meter.gauges["dgemma_reload_refused"] == 1


async def test_request_in_flight_outlives_a_change_of_limits(make: Make, engine: SteppingEngine) -> None:
    replica = make()
    asking = asyncio.create_task(ask(replica.app, "/infill", BODY | {"n_predict": 30}))
    await until(lambda: bool(engine.runs) and engine.runs[0].num_steps > 0)
    replica.reconfigure({"max_requests": 1})
    assert (await asking).json["content"] == "4|1"


async def test_key_that_was_taken_out_of_the_file_is_refused_once_reconfigured(make: Make, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"ann {KEY}\nbob {KEY[::-1]}\n")
    replica = make(EngineArguments(api_key_file=str(keys)))
    assert (await ask(replica.app, "/infill", BODY)).status == 401
    assert (await ask(replica.app, "/infill", BODY, authorization=f"Bearer {KEY}")).status == 200
    keys.write_text(f"bob {KEY[::-1]}\n")
    replica.reconfigure({})
    assert (await ask(replica.app, "/infill", BODY, authorization=f"Bearer {KEY}")).status == 401
    assert (await ask(replica.app, "/infill", BODY, authorization=f"Bearer {KEY[::-1]}")).status == 200


async def test_changed_file_of_keys_is_read_at_the_next_health_check(make: Make, meter: Meter, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"ann {KEY}\n")
    replica = make(EngineArguments(api_key_file=str(keys)), ReplicaLimits(max_middle_tokens=7))
    keys.write_text(f"ann {KEY}\nbob {KEY[::-1]}\n")
    await replica.check_health()
    assert (await ask(replica.app, "/infill", BODY, authorization=f"Bearer {KEY[::-1]}")).status == 200
    keys.unlink()
    await replica.check_health()
    assert meter.gauges["dgemma_reload_refused"] == 1
    assert (await ask(replica.app, "/infill", BODY, authorization=f"Bearer {KEY}")).status == 200


async def test_request_over_the_limit_gets_429_with_retry_after(make: Make, engine: SteppingEngine) -> None:
    replica = make(limits=ReplicaLimits(max_requests=1))
    asking = asyncio.create_task(ask(replica.app, "/infill", BODY | {"n_predict": 30}))
    await until(lambda: bool(engine.runs))
    refused = await ask(replica.app, "/infill", BODY | {"input_prefix": "y = "})
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert (await asking).status == 200


async def test_every_end_of_a_completion_is_counted(make: Make, engine: SteppingEngine, meter: Meter) -> None:
    replica = make(limits=ReplicaLimits(max_requests=2, num_at_once=1))
    leaving = asyncio.Event()
    long = BODY | {"n_predict": 200}
    running = asyncio.create_task(ask(replica.app, "/infill", long | {"t_max_predict_ms": 60_000}, leaving=leaving))
    await until(lambda: bool(engine.runs))
    waiting = asyncio.create_task(ask(replica.app, "/v1/infill", {"prefix": "y = ", "suffix": "", "deadline_ms": 20}))
    await until(lambda: replica.app.num_under_way == 2)
    assert (await ask(replica.app, "/infill", BODY | {"input_prefix": "z = "})).status == 429
    assert (await waiting).json["finish"] == "deadline"
    assert len(engine.runs) == 1
    leaving.set()
    await running
    await ask(replica.app, "/v1/infill", {"prefix": "x", "suffix": "", "path": "fault"})
    await ask(replica.app, "/infill", BODY)
    ends = {labels: number for (name, labels), number in meter.counts.items() if name == "dgemma_requests"}
    assert ends == {"busy": 1, "deadline": 1, "cancelled": 1, "fault": 1, "stable": 1}
    # The wait of the request whose deadline passed before it reached the engine.
    assert meter.values_ms["queue"][0] > 0


async def test_request_of_another_deployment_is_counted_by_its_end(
    make: Make, engine: SteppingEngine, meter: Meter
) -> None:
    replica = make()
    wire = Context(document="a", prefix="x = ", suffix="\n", max_middle_tokens=256, drafts="7").to_wire()
    stream = replica.infill(wire, "s")
    await anext(stream)
    await stream.aclose()
    await until(lambda: engine.runs[0].ended and bool(meter.counts))
    fault = Context(document="a", prefix="x", suffix="", path="fault")
    with pytest.raises(EngineFault):
        async for _message in replica.infill(fault.to_wire(), "s"):
            pass
    async for _message in replica.infill(wire | {"max_middle_tokens": 2}, "s"):
        pass
    ends = {labels: number for (name, labels), number in meter.counts.items() if name == "dgemma_requests"}
    assert ends == {"cancelled": 1, "fault": 1, "stable": 1}


async def test_health_check_sets_the_gauges(make: Make, meter: Meter) -> None:
    await make().check_health()
    assert meter.gauges["dgemma_memory_bytes"] > 0
    assert meter.gauges["dgemma_under_way"] == 0


async def test_replica_that_is_stuck_in_a_step_is_not_healthy(engine: SteppingEngine, make: Make) -> None:
    going_on = threading.Event()
    engine._sleep = lambda _s: going_on.wait(10)
    replica = make(limits=ReplicaLimits(longest_step_s=0.01))
    await replica.check_health()
    asking = asyncio.create_task(ask(replica.app, "/infill", BODY))
    await until(lambda: bool(engine.runs) and replica.device.step_s > 0.05)
    with pytest.raises(EngineUnavailable, match="the engine has been in one step for"):
        await replica.check_health()
    going_on.set()
    await asking
    await replica.check_health()


async def test_lost_card_is_reported_and_ends_the_process(
    engine: SteppingEngine, make: Make, ended: threading.Event
) -> None:
    replica = make()
    engine.fault = torch.AcceleratorError("CUDA error: unspecified launch failure")
    context = Context(document="a", prefix="x", suffix="", path="fault")
    with pytest.raises(EngineFault, match="the device failed"):
        async for _message in replica.infill(context.to_wire(), "s"):
            pass
    with pytest.raises(EngineUnavailable, match="the card is lost"):
        await replica.check_health()
    assert (await ask(replica.app, "/infill", BODY)).status == 503
    await until(ended.is_set)


async def test_other_deployment_gets_drafts_and_the_answer(make: Make, engine: SteppingEngine) -> None:
    replica = make()
    context = Context(document="a", prefix="x = ", suffix="\n", max_middle_tokens=3, drafts="7")
    messages = [message async for message in replica.infill(context.to_wire(), "s")]
    assert [next(iter(message)) for message in messages] == ["draft", "draft", "draft", "answer"]
    assert messages[-1]["answer"]["text"] == "4|1"
    assert engine.seen[-1].document == "handle/s/a"


async def test_other_deployment_that_closes_its_stream_ends_the_work(make: Make, engine: SteppingEngine) -> None:
    replica = make()
    context = Context(document="a", prefix="x = ", suffix="\n", max_middle_tokens=256, drafts="7")
    stream = replica.infill(context.to_wire(), "s")
    await anext(stream)
    await stream.aclose()
    await until(lambda: engine.runs[0].ended)
    assert engine.runs[0].num_steps < 256


@pytest.mark.parametrize("wire", [{}, {"document": "a", "prefix": 5, "suffix": ""}, {"document": "a", "nothing": 1}])
async def test_wrong_request_of_another_deployment_is_refused(make: Make, wire: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        await anext(make().infill(wire, "s"))


async def test_lifespan_messages_are_answered(make: Make) -> None:
    coming = [{"type": "lifespan.shutdown"}, {"type": "lifespan.startup"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return coming.pop()

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await make().app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_user_header_of_the_proxy_names_the_user(make: Make, engine: SteppingEngine, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"proxy {KEY}\n")
    replica = make(EngineArguments(api_key_file=str(keys), user_header="X-User"))
    secret = f"Bearer {KEY}"
    assert (await ask(replica.app, "/infill", BODY, authorization=secret)).status == 401
    assert (await ask(replica.app, "/infill", BODY, x_user="ann")).status == 401
    for user in ("ann", "bob", "ann"):
        assert (await ask(replica.app, "/infill", BODY, authorization=secret, x_user=user)).status == 200
    documents = [context.document for context in engine.seen]
    assert documents[0] == documents[2] != documents[1]


async def test_users_whose_names_join_to_the_same_text_stay_apart(
    make: Make, engine: SteppingEngine, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"proxy {KEY}\nproxy:a {KEY[::-1]}\n")
    replica = make(EngineArguments(api_key_file=str(keys), user_header="X-User"))

    async def document_of(key: str, user: str, session: str) -> str:
        question = QuestionText.of(Context(document="d", prefix="x", suffix="", max_middle_tokens=1))
        number = len(engine.seen) + 1
        body = envelope(
            question, None, protocol=PROTOCOL, session=session, request=f"{number}", number=number, drafts=False
        )
        asked = await ask(replica.app, INFILL_PATH, json.loads(body), authorization=f"Bearer {key}", x_user=user)
        assert asked.status == 200
        return engine.seen[-1].document

    found = [
        await document_of(*one)
        for one in ((KEY, "a/b", "c"), (KEY, "a", "b/c"), (KEY, "a:b", "c"), (KEY[::-1], "b", "c"), (KEY, "a%2Fb", "c"))
    ]
    assert len(set(found)) == len(found), found
