"""A team's engines on Ray Serve: overhead, people who type at once, replicas that are killed, and a simulation of more.

Everything runs on this machine. The overhead and the replay with many requests use an engine that answers at once;
people type at replicas of the model `tiny`; the simulation is checked against them and then run for more people and
cards than there are here.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies
sys.path.insert(0, str(Path(__file__).parents[1] / "server"))
sys.path.insert(0, str(Path(__file__).parents[1] / "http_api"))

from dgemma_engine.cluster.closing import closed

# Ray reads these variables when it is imported.
os.environ |= closed(os.environ)

import record
from dgemma_engine.cluster.application import EngineReplica, application_of
from dgemma_engine.engine_client.connection import EngineConnection
from dgemma_engine.engine_client.connection_status import ConnectionStatus
from dgemma_engine.engine_client.retry_policy import RetryPolicy
from dgemma_engine.protocol.messages import Context, Draft, Infill
from dgemma_engine.remote.connect import connect_remote
from dgemma_engine.remote.remote_location import RemoteLocation
from echo_replica import EchoReplica
from local_cluster import LocalCluster, local_cluster
from remote_engine import engine as echo_engine
from shared_machine import Carrying, carrying, replica_processor_s
from team_simulation import QuestionCosts, Team, simulate
from team_typing import Costs, Outcomes, costs_of, pieces, question, type_for

_PORT, _NUM_REPLICAS = 8_471, 2
_WARM_UP = 20
_AT_ONCE = 8
_NUM_SIMULATED = 8
_TARGETS = {
    "target_handle_added_ms": 4,
    "target_http_added_ms": 8,
    "target_warm_share": 0.9,
    "target_simulation_error": 0.15,
    "target_answers_again_s": 2,
}


async def overhead(cluster: LocalCluster, rounds: int) -> dict[str, float]:
    """Returns what handle and HTTP add to the socket, one request at a time, medians of differences in a round."""
    handle: Any = cluster.handle.options(method_name="infill", stream=True, session_id="one")
    times_ms: dict[str, list[float]] = {"socket": [], "handle": [], "http": []}
    with tempfile.TemporaryDirectory(prefix="dgemma-") as runtime:
        async with echo_engine(runtime) as client, cluster.remote() as remote:

            async def by_handle(context: Context) -> Infill:
                answers = [message async for message in handle.remote(context.to_wire(), "one")]
                return Infill.from_wire(answers[-1]["answer"])

            ways = {"socket": client.infill, "handle": by_handle, "http": remote.infill}
            for number in range(rounds + _WARM_UP):
                context = Context(document="a", prefix=f"text #{number}", suffix="\n", deadline_ms=5_000)
                for name, ask in ways.items():
                    began_s = time.perf_counter()
                    infill = await ask(context)
                    times_ms[name].append((time.perf_counter() - began_s) * 1e3)
                    assert infill.text == f"{number}", (name, infill)
    kept = {name: values[_WARM_UP:] for name, values in times_ms.items()}
    added = {
        name: [one - socket for one, socket in zip(kept[name], kept["socket"], strict=True)]
        for name in ("handle", "http")
    }
    return {
        "socket_ms": round(statistics.median(kept["socket"]), 2),
        "handle_added_ms": round(statistics.median(added["handle"]), 2),
        "http_added_ms": round(statistics.median(added["http"]), 2),
    }


async def replay(cluster: LocalCluster, num_questions: int, kill_s: float) -> dict[str, Any]:
    """Returns the outcomes of requests whose answers carry their number, while replicas are killed."""
    outcomes, waiting, killed = Counter[str](), itertools.count(), list[float]()
    away_s: list[float] = []
    killing = asyncio.create_task(cluster.kill_one_now_and_then(kill_s, killed))

    async def ask_in_turn(session: int) -> None:
        connection = EngineConnection(
            partial(connect_remote, RemoteLocation(url=f"http://127.0.0.1:{cluster.port}")),
            on_status=lambda _: None,
            on_fault=lambda _: None,
            clock=time.monotonic,
            policy=RetryPolicy(connect_ms=5_000, first_pause_s=0.05, longest_pause_s=0.05),
        )
        lost_s: float | None = None
        while (number := next(waiting)) < num_questions:
            outcome = await _outcome(connection, session, number)
            outcomes[outcome] += 1
            if outcome == "answered":
                if lost_s is not None:
                    away_s.append(time.monotonic() - lost_s)
                lost_s = None
            elif outcome == "told in the status":
                lost_s = lost_s or time.monotonic()
                await asyncio.sleep(0.05)
        await connection.close()

    await asyncio.gather(*(ask_in_turn(session) for session in range(_AT_ONCE)))
    killing.cancel()
    return {
        "requests": sum(outcomes.values()),
        "killed": len(killed),
        "outcomes": dict(outcomes),
        "unanswered": outcomes["unanswered"],
        "crossed": outcomes["of another question"],
        "answers_again_s_max": round(max(away_s, default=0.0), 2),
    }


async def _outcome(connection: EngineConnection, session: int, number: int) -> str:
    drafts: list[Draft] = []
    # All sessions name their document alike.
    asked = Context(document="file:///a.py", prefix=f"{'text ' * 100}#{number}", suffix="\n", deadline_ms=3_000)
    try:
        async with asyncio.timeout(30):
            answer = await connection.infill(asked, drafts.append if number % 5 == 0 else None)
    except TimeoutError:
        return "unanswered"
    if isinstance(answer, ConnectionStatus):
        return "told in the status"
    if {draft.text for draft in drafts} - {f"{number}"} or answer.text not in ("", f"{number}"):
        return "of another question"
    return "answered" if answer.text else answer.finish.value


async def typing(
    cluster: LocalCluster, *, people: int, seconds: float, pause_s: float, kill_s: float | None
) -> Outcomes:
    """Lets people type at once; returns the outcomes of their keys."""
    outcomes, texts = Outcomes(), pieces()
    async with AsyncExitStack() as stack:
        remotes = [await stack.enter_async_context(cluster.remote()) for _ in range(people)]
        killing = None
        if kill_s is not None:
            killing = asyncio.create_task(cluster.kill_one_now_and_then(kill_s, []))
        end_s = time.monotonic() + seconds
        await asyncio.gather(
            *(
                type_for(remote, person, end_s, outcomes, texts=texts, pause_s=pause_s)
                for person, remote in enumerate(remotes)
            )
        )
        if killing is not None:
            killing.cancel()
    return outcomes


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Returns all figures."""
    result: dict[str, Any] = {}
    arguments = {"allow_anyone": True, "cpus": 1.0}
    with local_cluster(application_of(EchoReplica, arguments, num_replicas=_NUM_REPLICAS), port=_PORT) as cluster:
        result["overhead"] = asyncio.run(overhead(cluster, args.rounds))
        carried = asyncio.run(cost_of_carrying(cluster, args.rounds))
        result["replay_at_once"] = asyncio.run(replay(cluster, args.requests, args.kill_s))
    real = application_of(EngineReplica, arguments | {"model": "tiny"}, num_replicas=_NUM_REPLICAS)
    with local_cluster(real, port=_PORT) as cluster:
        setting = {"people": args.people, "seconds": args.seconds, "pause_s": args.pause_s}
        few = asyncio.run(typing(cluster, people=20, seconds=args.seconds, pause_s=args.pause_s, kill_s=None))
        many = asyncio.run(typing(cluster, **setting, kill_s=None))
        costs = asyncio.run(costs_when_busy(cluster, args.cost_s, carried))
        lossy = asyncio.run(typing(cluster, **setting, kill_s=args.kill_s))
    result["typing_20"], result["typing"], result["typing_with_losses"] = few.summary(), many.summary(), lossy.summary()
    result["simulation"] = simulated(few, many, costs, carried, args)
    parts = (result["replay_at_once"], result["typing_20"], result["typing"], result["typing_with_losses"])
    return result | {
        "unanswered": sum(part["unanswered"] for part in parts),
        "crossed": sum(part["crossed"] for part in parts),
        "warm_share": result["typing_20"]["warm_share"],
        "handle_added_ms": result["overhead"]["handle_added_ms"],
        "http_added_ms": result["overhead"]["http_added_ms"],
    }


async def cost_of_carrying(cluster: LocalCluster, num_questions: int) -> Carrying:
    """Returns the transport cost of the requests of one person who types."""
    longest = max(pieces(), key=lambda piece: len(piece.typed))
    async with cluster.remote() as remote:
        typed = [
            question(longest, number % len(longest.typed), number // len(longest.typed))
            for number in range(num_questions)
        ]
        return await carrying(remote, cluster.replica_pids, typed)


async def costs_when_busy(cluster: LocalCluster, seconds: float, carried: Carrying) -> Costs:
    """Returns the cost of requests while every replica is busy."""
    async with AsyncExitStack() as stack:
        remotes = [await stack.enter_async_context(cluster.remote()) for _ in range(_NUM_REPLICAS + 1)]
        before_s = sum(map(replica_processor_s, cluster.replica_pids()))
        costs = await costs_of(remotes, pieces(), seconds=seconds)
        used_s = sum(map(replica_processor_s, cluster.replica_pids())) - before_s
    num_asked = len(costs.first_ms) + len(costs.warm_ms)
    own_s = used_s - num_asked * carried.answered.replica_s - seconds * carried.at_rest.replica_s
    return replace(costs, processor_share=own_s * 1e3 / (sum(costs.first_ms) + sum(costs.warm_ms)))


def simulated(
    few: Outcomes, many: Outcomes, costs: Costs, carried: Carrying, args: argparse.Namespace
) -> dict[str, Any]:
    """Returns the simulation of the measured runs, and of large teams."""
    result: dict[str, Any] = {
        "cost_ms": {
            name: round(statistics.median(times_ms), 1)
            for name, times_ms in (("first", costs.first_ms), ("warm", costs.warm_ms))
        },
        "processor_share": round(costs.processor_share, 3),
        "carrying_ms": {
            name: round(seconds * 1_000, 2)
            for name, seconds in (
                ("answered_replica", carried.answered.replica_s),
                ("answered_outside", carried.answered.outside_s),
                ("taken_back_replica", carried.taken_back.replica_s),
                ("taken_back_outside", carried.taken_back.outside_s),
                ("idle", carried.idle_s),
            )
        },
        "at_rest_share": round(carried.at_rest.replica_s + carried.at_rest.outside_s, 3),
    }
    for name, measured, people in (("typing_20", few, 20), ("typing", many, args.people)):
        team = Team(people=people, num_replicas=_NUM_REPLICAS, pause_s=args.pause_s, seconds=args.seconds)
        found = simulate(
            team, QuestionCosts.measured(costs, carried, os.cpu_count() or 1), pieces(), seeds=range(_NUM_SIMULATED)
        )
        took = measured.summary()
        errors = {key: round(found[key] / took[key] - 1, 3) for key in ("p50_ms", "p95_ms") if took[key]}
        result[name] = found | {"error": errors}
    result["teams"] = {
        f"{people}_people_{cards}_cards": simulate(
            Team(people=people, num_replicas=cards, pause_s=args.pause_s, seconds=60.0),
            QuestionCosts.h200(args.h200_step_ms, together_on_a_card()),
            pieces(),
            seeds=[1],
        )
        for people, cards in ((1_000, 8), (1_000, 16), (10_000, 32), (10_000, 64))
    }
    return result


def together_on_a_card() -> dict[int, float]:
    """Returns the computed duration of a step by number of users, relative to one user: fp8, canvas of 100."""
    path = Path(__file__).parents[3] / "kernels/bench/results/roofline.json"
    by_users = json.loads(path.read_text(encoding="utf-8"))["together"]["fp8"]["100"]
    alone_ms = by_users["1"]["floor_ms_per_step"]
    return {int(users): entry["floor_ms_per_step"] / alone_ms for users, entry in by_users.items()}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120.0, help="of each of three runs of people who type")
    parser.add_argument("--pause-s", type=float, default=30.0, help="mean of a person's pauses between two pieces")
    parser.add_argument("--cost-s", type=float, default=60.0, help="seconds of people who wait for every answer")
    parser.add_argument("--kill-s", type=float, default=20.0, help="seconds between two losses of a replica")
    parser.add_argument("--h200-step-ms", type=float, default=9.5, help="of a denoising step, for the simulation")
    args = parser.parse_args()
    result = measure(args)
    names = ("rounds", "people", "seconds", "pause_s", "kill_s", "h200_step_ms")
    setting = {name: getattr(args, name) for name in names} | {"replicas": _NUM_REPLICAS}
    record.write("teams", {**setting, **result, **_TARGETS}, args.out)


if __name__ == "__main__":
    main()
