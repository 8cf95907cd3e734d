"""Users of one replica whose sessions and documents have the same names: each gets the answers to their requests."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dgemma_engine.cluster.arguments import EngineArguments, ReplicaLimits
from dgemma_engine.cluster.replica import Replica
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.cluster.asgi_client import ask
from tests.engine.cluster.test_replica import Meter
from tests.engine.fake_engine import SteppingEngine

KEYS = {"ann": "a" * 16, "bob": "b" * 16, "cid": "c" * 16}
MOVES = st.lists(
    st.tuples(
        st.sampled_from(list(KEYS)),
        st.sampled_from(["a.py", "b.py"]),
        st.sampled_from(["ask", "leave", "handle"]),
        st.integers(1, 6),
    ),
    min_size=3,
    max_size=16,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=MOVES)
def test_users_neither_get_nor_end_the_requests_of_others(
    tmp_path: Path, moves: list[tuple[str, str, str, int]]
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{name} {key}\n" for name, key in KEYS.items()))
    replica = Replica(
        EngineArguments(api_key_file=str(keys)),
        ReplicaLimits(max_requests=64),
        load=lambda _report: SteppingEngine(step_s=0.001),
        meter=Meter(),
        end=lambda: None,
    )

    async def move(number: int, user: str, path: str, kind: str, num_tokens: int) -> tuple[str, str, str, int, str]:
        # Only this request has a prefix of this length.
        prefix, leaving = "x" * (100 + number), asyncio.Event()
        if kind == "handle":
            wire = {"document": path, "prefix": prefix, "suffix": "", "max_middle_tokens": num_tokens}
            messages = [message async for message in replica.infill(wire, user)]
            return user, path, kind, number, messages[-1]["answer"]["text"]
        body = {"input_prefix": prefix, "input_suffix": "", "n_predict": num_tokens, "filename": path}
        headers = {"authorization": f"Bearer {KEYS[user]}", "x_session_id": "one"}
        asking = asyncio.create_task(ask(replica.app, "/infill", body, leaving=leaving, **headers))
        if kind == "leave":
            await asyncio.sleep(0)
            leaving.set()
        asked = await asking
        return user, path, kind, number, asked.json["content"] if asked.status else ""

    async def all_moves() -> list[tuple[str, str, str, int, str]]:
        return await asyncio.gather(*(move(number, *one) for number, one in enumerate(moves)))

    try:
        answers = asyncio.run(all_moves())
    finally:
        replica.close()
        assert replica.device.join(10)
    for user, path, kind, number, text in answers:
        # Only leaving, or a newer request of the same user, ends a request.
        is_handle = kind == "handle"
        newer = [one for one in answers if one[3] > number and one[0] == user and (one[2] == "handle") == is_handle]
        may_be_empty = kind == "leave" or any(one[1] == path or not is_handle for one in newer)
        assert text == f"{100 + number}|0" or (text == "" and may_be_empty), (user, path, kind, number, text)
