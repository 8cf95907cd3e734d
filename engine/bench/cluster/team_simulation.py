"""A team and its replicas as a discrete-event model: for more people and cards than a measurement has.

A person types as in `team_typing`. A replica lets a few documents in at a time; they take turns on the device, step by
step, or make their steps together where that is faster; of one document only the newest question counts. The first
question of a piece has a prompt to encode; the part encoded before it was cancelled serves the next one. Costs of
questions are drawn from measurements of people who wait for every answer (of others, only short questions finish), or
follow from the time of a step on a card. On a machine that editors, proxy and replicas share, all of them take turns on
its cores (`shared_machine`). Losses of replicas and the memory for prompts are not modelled.
"""

from __future__ import annotations

import hashlib
import random
import statistics
import sys
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
import simpy
from shared_machine import Carrying, SharedMachine
from simpy.events import Event
from simpy.resources.resource import Request
from team_typing import DEADLINE_MS, DEBOUNCE_S, Costs, Piece

_NUM_VIRTUAL_NODES = 100
# Passes for one inline completion, with candidates and ranking; milliseconds for the new tokens of a warm prompt; and
# for a cold prompt of 2,048 tokens at half of the card's rate (two operations a token for each of 3.8e9 weights in
# use).
_FORWARDS, _ONCE_MS, _COLD_MS = 8, 8.0, 40.0
_AT_ONCE_ON_A_CARD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """The people and the replicas.

    Attributes:
        people: editors.
        num_replicas: engines.
        pause_s: mean of a person's pauses.
        seconds: simulated time.
    """

    people: int
    num_replicas: int
    pause_s: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionCosts:
    """The costs of a question.

    Attributes:
        cold_s: draws the seconds of the device that a cold prompt takes.
        service_s: draws the seconds of the device that a question with a warm prompt takes alone.
        step_s: piece of either that is not interrupted.
        way_s: seconds of transport in which no core of the shared machine works.
        carrying: cost of a question's transport on the shared machine.
        num_cores: of the machine that is shared; None where each program has one of its own.
        together: returns the duration of a step of that many documents, relative to a step of one document.
        num_at_once: documents that a replica works on at the same time.
        max_requests: questions in a replica; one more is refused and may be sent again.
    """

    cold_s: Callable[[random.Random], float]
    service_s: Callable[[random.Random], float]
    step_s: float
    way_s: float
    together: Callable[[int], float]
    carrying: Carrying = field(default_factory=Carrying)
    num_cores: int | None = None
    num_at_once: int = 2
    max_requests: int = 16

    @classmethod
    def measured(cls, costs: Costs, carrying: Carrying, num_cores: int) -> QuestionCosts:
        """Returns a setting with measured times; documents take turns on a processor, and all share its cores."""
        warm_s = [one / 1_000 * costs.processor_share for one in costs.warm_ms]
        usual_s = statistics.median(warm_s)
        cold_s = [max(0.0, one / 1_000 * costs.processor_share - usual_s) for one in costs.first_ms]
        return cls(
            cold_s=lambda draw: draw.choice(cold_s),
            service_s=lambda draw: draw.choice(warm_s),
            step_s=0.02,
            way_s=carrying.idle_s,
            together=float,
            carrying=carrying,
            num_cores=num_cores,
        )

    @classmethod
    def h200(cls, step_ms: float, together: Mapping[int, float]) -> QuestionCosts:
        """Returns the setting of a card.

        Args:
            step_ms: duration of a denoising step of one document.
            together: relative duration of a step by number of documents; numbers in between are interpolated.
        """
        service_s = (_FORWARDS * step_ms + _ONCE_MS) / 1_000
        known = sorted(together)

        def times(num: int) -> float:
            above = next((one for one in known if one >= num), known[-1])
            below = max((one for one in known if one <= num), default=known[0])
            if above == below:
                return together[above]
            share = (num - below) / (above - below)
            return (1 - share) * together[below] + share * together[above]

        return cls(
            cold_s=lambda _draw: _COLD_MS / 1_000,
            service_s=lambda _draw: service_s,
            step_s=step_ms / 1_000,
            way_s=0.006,
            together=times,
            num_at_once=_AT_ONCE_ON_A_CARD,
        )


@dataclass(slots=True)
class _Prompt:
    """The part of a prompt that is still to be encoded.

    Attributes:
        left_s: seconds of the device.
    """

    left_s: float


class _Replica:
    """One engine: its queue, its slots, its device, its interpreter."""

    def __init__(self, world: simpy.Environment, setting: QuestionCosts, machine: SharedMachine) -> None:
        self._world, self._setting, self._machine = world, setting, machine
        self.interpreter = simpy.Resource(world, capacity=1)
        self._slots = simpy.Resource(world, capacity=setting.num_at_once)
        self._device = simpy.Resource(world, capacity=1)
        self._num_under_way = 0
        self.busy_s = 0.0

    def answer(self, prompt: _Prompt, service_s: float) -> Generator[Event, Any, str]:
        """Works on a question; interrupted when its person takes it back."""
        if self._num_under_way >= self._setting.max_requests:
            return "told to come again"
        self._num_under_way += 1
        deadline_s = self._world.now + DEADLINE_MS / 1_000
        try:
            with self._slots.request() as slot:
                yield slot
                while prompt.left_s > 0 and self._world.now < deadline_s:
                    step_s = min(prompt.left_s, self._setting.step_s)
                    yield from self._turn(step_s)
                    prompt.left_s -= step_s
                left_s = service_s
                while left_s > 1e-9 and self._world.now < deadline_s:
                    step_s, num = min(left_s, self._setting.step_s), self._slots.count
                    yield from self._turn(step_s * self._setting.together(num) / num)
                    left_s -= step_s
            return "answered" if self._world.now < deadline_s else "deadline"
        finally:
            self._num_under_way -= 1

    def _turn(self, step_s: float) -> Generator[Event, Any, None]:
        turn = self._device.request()
        try:
            yield turn
        except simpy.Interrupt:
            turn.cancel()
            self._device.release(turn)
            raise
        # A step that has begun is finished, even if the question is cancelled meanwhile.
        yield self._world.process(self._step(turn, step_s))

    def _step(self, turn: Request, step_s: float) -> Generator[Event, Any, None]:
        yield from self._machine.work(step_s, self.interpreter)
        self.busy_s += step_s
        self._device.release(turn)


def simulate(team: Team, setting: QuestionCosts, texts: Sequence[Piece], *, seeds: Sequence[int]) -> dict[str, Any]:
    """Returns waiting times, and how busy the devices are, in as many runs as seeds.

    Args:
        team: the people and the replicas.
        setting: the costs of a question.
        texts: what is typed.
        seeds: of all draws of a run.
    """
    ends, times_ms, busy = Counter[str](), list[float](), list[float]()
    for seed in seeds:
        busy += _run(team, setting, texts, seed, ends, times_ms)
    return {
        "ends": dict(ends),
        "p50_ms": round(statistics.median(times_ms), 1) if times_ms else None,
        "p95_ms": round(record.quantile(times_ms, 0.95), 1) if times_ms else None,
        "busy_mean": round(statistics.mean(busy), 3),
        "busy_most": round(max(busy), 3),
        "cards_per_person": round(team.num_replicas / team.people, 5),
    }


def _run(
    team: Team, setting: QuestionCosts, texts: Sequence[Piece], seed: int, ends: Counter[str], times_ms: list[float]
) -> list[float]:
    """Adds how questions ended and how long answers took; returns the share of time that each device was busy."""
    world = simpy.Environment()
    machine, carrying = SharedMachine(world, setting.num_cores), setting.carrying
    replicas = [_Replica(world, setting, machine) for _ in range(team.num_replicas)]
    home_of = _ring(team.num_replicas)
    if at_rest_s := carrying.at_rest.outside_s + carrying.at_rest.replica_s:
        world.process(machine.load(at_rest_s))

    def forget(replica: _Replica) -> Generator[Event, Any, None]:
        yield from machine.work(carrying.taken_back.outside_s)
        yield from machine.work(carrying.taken_back.replica_s, replica.interpreter)

    def ask(replica: _Replica, prompt: _Prompt, draw: random.Random) -> Generator[Event, Any, None]:
        try:
            yield world.timeout(DEBOUNCE_S)
        except simpy.Interrupt:
            ends["waited for the next key"] += 1
            return
        began_s = world.now
        try:
            yield world.timeout(setting.way_s)
            yield from machine.work(carrying.answered.outside_s)
            yield from machine.work(carrying.answered.replica_s, replica.interpreter)
            end = yield from replica.answer(prompt, setting.service_s(draw))
        except simpy.Interrupt:
            ends["taken back"] += 1
            world.process(forget(replica))
            return
        took_ms = (world.now - began_s) * 1_000
        if took_ms > DEADLINE_MS:
            # The editor has given the request up.
            end = "told in the status"
        ends[end] += 1
        if end in ("answered", "deadline"):
            times_ms.append(took_ms)

    def person(number: int) -> Generator[Event, Any, None]:
        draw, replica = random.Random(f"{seed} {number}"), replicas[home_of(f"{seed} {number}")]
        yield world.timeout(draw.uniform(0, team.pause_s))
        while True:
            piece, prompt = draw.choice(texts), _Prompt(setting.cold_s(draw))
            asking: simpy.Process | None = None
            for _ in piece.typed:
                if asking is not None and asking.is_alive:
                    asking.interrupt()
                asking = world.process(ask(replica, prompt, draw))
                yield world.timeout(draw.gammavariate(4, 1 / (4 * piece.keys_per_s)))
            if asking is not None and asking.is_alive:
                yield asking
            yield world.timeout(draw.expovariate(1 / team.pause_s))

    for number in range(team.people):
        world.process(person(number))
    world.run(until=team.seconds)
    return [replica.busy_s / team.seconds for replica in replicas]


def _ring(num_replicas: int) -> Callable[[str], int]:
    """Returns the replica of a session, by consistent hashing with virtual nodes."""
    nodes = sorted(
        (_hash(f"replica {replica} {node}"), replica)
        for replica in range(num_replicas)
        for node in range(_NUM_VIRTUAL_NODES)
    )
    places = [place for place, _ in nodes]
    return lambda session: nodes[bisect(places, _hash(f"session {session}")) % len(nodes)][1]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
