"""What an engine on another machine adds to one over the socket, and whether a bad network loses or repeats answers.

The engine answers at once, in a process of its own; `dgemma-engine serve` and the proxy are others. A key is typed into
the middle of a 2,000-line file in each round, and sent over the socket, over HTTP on this machine, and through a proxy
that takes 10 ms in each direction; and through the proxy once more, after the request before it was cancelled on its
way, as fast typing does. What is added is the difference within a round.

The replay asks through a proxy that resets connections, delays pieces and cuts answers, as a language server asks: a
number in each answer and each draft names its request.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies
sys.path.insert(0, str(Path(__file__).parents[1] / "server"))

import record
from dgemma_engine.engine_client.connection import EngineConnection
from dgemma_engine.engine_client.connection_status import ConnectionStatus
from dgemma_engine.engine_client.retry_policy import RetryPolicy
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.protocol.messages import Context, Draft, DraftSpan, Finish, Infill
from dgemma_engine.remote.connect import connect_remote
from dgemma_engine.remote.remote_engine import RemoteEngine
from dgemma_engine.remote.remote_location import RemoteLocation
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tracing.recorder import Recorder
from instant_engine import SLOW_PATH, InstantEngine, process
from running_server import running_server
from spoiled_network import network_to, slow_network_to

NUM_LINES, DELAY_MS = 2_000, 20.0
_WARM_UP, _NUM_SIZES = 20, 50
_TARGETS = {"target_loopback_median_ms": 4, "target_delayed_median_ms": 25, "target_key_bytes": 4_096}
_RESET, _HALF, _LATE = 0.02, 0.01, 0.05
_LATE_S = 0.05
_AT_ONCE = 4


class EchoEngine(InstantEngine):
    """Answers with the number at the end of a prefix, after two drafts of it, or slowly with nothing."""

    def filling(
        self,
        context: Context,
        cancel: Cancel,
        *,
        on_draft: Callable[[Draft], None] = lambda _draft: None,
        recorder: Recorder | None = None,
    ) -> Pieces[Infill]:
        """Returns the number."""
        if context.path == SLOW_PATH:
            return (yield from super().filling(context, cancel))
        number = context.prefix.rpartition("#")[2] if "#" in context.prefix else ""
        if not number:
            return Infill(text="value", finish=Finish.STABLE, score=0.9, steps=1, timings_ms={"total": 0.0})
        for step in (1, 2):
            if (finish := cancel.finish) is not None:
                return Infill(text="", finish=finish)
            if context.drafts:
                spans = (DraftSpan(text=number, confidence=0.5, settled=False),)
                on_draft(Draft(request=context.drafts, step=step, text=number, spans=spans))
            yield
        return Infill(text=number, finish=Finish.STABLE, score=0.9, steps=2, timings_ms={"total": 0.0})


def load_echo(_report: Callable[[int, str], None]) -> EchoEngine:
    """Loads nothing."""
    return EchoEngine()


def engine(runtime: str) -> AbstractAsyncContextManager[EngineClient]:
    """Gives a client of an engine in a process of its own."""
    return process(EngineLocation.locate({"DGEMMA_RUNTIME_DIR": runtime}, model="tiny"), load_echo)


@asynccontextmanager
async def remote_to(port: int) -> AsyncGenerator[RemoteEngine]:
    """Gives a client that is connected to a port."""
    location = RemoteLocation(url=f"http://127.0.0.1:{port}")
    remote = await connect_remote(location, on_progress=lambda _: None, on_closed=lambda _why: None)
    try:
        yield remote
    finally:
        await remote.close()


async def keys(client: EngineClient, port: int, rounds: int) -> dict[str, Any]:
    """Returns the time of a key each way, and what is added."""
    above, suffix = _file()
    times_ms: dict[str, list[float]] = {"socket": [], "loopback": [], "delayed": [], "delayed_after_cancelled": []}
    async with (
        slow_network_to(port, delay_s=DELAY_MS / 2_000) as far,
        remote_to(port) as loopback,
        remote_to(far) as delayed,
    ):
        await asyncio.sleep(0.5)
        for column in range(rounds + _WARM_UP):
            asked = Context(document="a", prefix=above + "x" * column, suffix=suffix, deadline_ms=5_000)
            for name, source in _ways(client, loopback, delayed):
                if name == "delayed_after_cancelled":
                    before = asyncio.create_task(source.infill(asked))
                    await asyncio.sleep(DELAY_MS / 4_000)
                    before.cancel()
                    asked = Context(document="a", prefix=asked.prefix + "x", suffix=suffix, deadline_ms=5_000)
                started = time.perf_counter()
                infill = await source.infill(asked)
                times_ms[name].append((time.perf_counter() - started) * 1e3)
                assert infill.finish is Finish.STABLE, (name, infill)
    times_ms = {name: values[_WARM_UP:] for name, values in times_ms.items()}
    result: dict[str, Any] = {}
    for name, values in times_ms.items():
        added = [one - socket for one, socket in zip(values, times_ms["socket"], strict=True)]
        result[name] = record.spread(values, middle="median_ms")
        if name != "socket":
            result[name]["added"] = record.spread(added, middle="median_ms")
    return result


def _ways(
    client: EngineClient, loopback: RemoteEngine, delayed: RemoteEngine
) -> tuple[tuple[str, EngineClient | RemoteEngine], ...]:
    return (
        ("socket", client),
        ("loopback", loopback),
        ("delayed", delayed),
        ("delayed_after_cancelled", delayed),
    )


async def sizes(port: int, num_keys: int) -> dict[str, int]:
    """Returns the bytes that the first question of a 2,000-line file sends, and the most that a key after it does."""
    above, suffix = _file()
    sent: list[int] = []
    async with network_to(port) as network, remote_to(network.port) as remote:
        await asyncio.sleep(0.5)
        for column in range(num_keys + 1):
            before = network.num_sent
            await remote.infill(Context(document="a", prefix=above + "x" * column, suffix=suffix, deadline_ms=5_000))
            sent.append(network.num_sent - before)
    return {"first_bytes": sent[0], "key_bytes_max": max(sent[1:])}


def _file() -> tuple[str, str]:
    lines = [f"value_{i} = compute(value_{i - 1}, {i})\n" for i in range(NUM_LINES)]
    return "".join(lines[: NUM_LINES // 2])[-16_000:], "".join(lines[NUM_LINES // 2 :])[:8_000]


async def replay(port: int, num_questions: int, seed: int) -> dict[str, Any]:
    """Returns the outcomes of all requests."""
    draw, outcomes = random.Random(seed), Counter[str]()
    injected = Counter[str]()

    def spoil(data: bytes) -> bytes | None:
        number = draw.random()
        if number < _RESET:
            injected["resets"] += 1
            return None
        if number < _RESET + _HALF:
            injected["half_answers"] += 1
            return data[: len(data) // 2]
        return data

    def late() -> float:
        if draw.random() >= _LATE:
            return 0.0
        injected["delays"] += 1
        return draw.uniform(0, _LATE_S)

    async with network_to(port) as network:
        network.from_engine, network.late_s, network.cuts_short = spoil, late, True
        connection = EngineConnection(
            partial(connect_remote, RemoteLocation(url=f"http://127.0.0.1:{network.port}")),
            on_status=lambda _: None,
            on_fault=lambda _: None,
            clock=time.monotonic,
            policy=RetryPolicy(connect_ms=5_000, first_pause_s=0.05, longest_pause_s=0.05),
        )
        waiting = iter(range(num_questions))

        async def ask_in_turn(document: str) -> None:
            for number in waiting:
                outcomes[await _outcome(connection, document, number)] += 1

        await asyncio.gather(*(ask_in_turn(f"file:///{index}.py") for index in range(_AT_ONCE)))
        await connection.close()
    return {"questions": num_questions, "injected": dict(injected), "outcomes": dict(outcomes)}


async def _outcome(connection: EngineConnection, document: str, number: int) -> str:
    """Asks one question; every 7th is cancelled and asked again, every 3rd wants drafts."""
    asked = Context(document=document, prefix=f"{'text ' * 200}#{number}", suffix="\n", deadline_ms=3_000)
    drafts: list[Draft] = []
    on_draft = drafts.append if number % 3 == 0 else None
    if number % 7 == 0:
        begun = asyncio.ensure_future(connection.infill(asked))
        await asyncio.sleep(0.001)
        begun.cancel()
        await asyncio.gather(begun, return_exceptions=True)
    try:
        async with asyncio.timeout(30):
            answer = await connection.infill(asked, on_draft)
    except TimeoutError:
        return "unanswered"
    num_drafts, steps = len(drafts), [draft.step for draft in drafts]
    await asyncio.sleep(0)
    if len(set(steps)) != len(steps) or len(drafts) != num_drafts:
        return "shown_twice"
    if {draft.text for draft in drafts} - {f"{number}"}:
        return "of_another_question"
    if isinstance(answer, ConnectionStatus):
        # Told in the status; the next question connects anew.
        with suppress(TimeoutError):
            await asyncio.sleep(0.06)
        return "told_in_the_status"
    if answer.text not in (f"{number}", ""):
        return "of_another_question"
    return "answered" if answer.text else answer.finish.value


async def measure(rounds: int, num_questions: int, seed: int) -> dict[str, Any]:
    """Returns all figures."""
    with tempfile.TemporaryDirectory(prefix="dgemma-") as runtime:
        async with engine(runtime) as client, running_server(runtime) as (url, _pid):
            port = int(url.rpartition(":")[2])
            found: dict[str, Any] = {"keys": await keys(client, port, rounds)}
            return found | await sizes(port, _NUM_SIZES) | {"replay": await replay(port, num_questions, seed)}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    result = asyncio.run(measure(args.rounds, args.questions, args.seed))
    setting = {"lines": NUM_LINES, "rounds": args.rounds, "delay_ms": DELAY_MS, "seed": args.seed}
    record.write("remote_engine", {**setting, **result, **_TARGETS}, args.out)


if __name__ == "__main__":
    main()
