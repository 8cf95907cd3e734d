"""Invalid numbers from an engine affect their own request at most."""

from __future__ import annotations

from typing import Any

import pytest
from dgemma_engine.errors import NotNow, OutOfReach
from dgemma_engine.protocol.messages import Finish, Infill
from dgemma_engine.remote.connect import connect_remote
from dgemma_engine.remote.remote_location import RemoteLocation

from tests.engine.remote.elsewhere import question
from tests.engine.remote.scripted_engine import about, answer, scripted_engine


@pytest.mark.parametrize("elapsed_ms", [float("nan"), float("inf"), -1e300, 10**400, True, "7", None, [1]])
async def test_invalid_elapsed_time_affects_no_later_request(elapsed_ms: Any) -> None:
    async with scripted_engine() as engine:
        engine.about = about(elapsed_ms=elapsed_ms)
        lost: list[OutOfReach] = []
        place = RemoteLocation(url=f"http://127.0.0.1:{engine.port}")
        remote = await connect_remote(place, on_progress=lambda _: None, on_closed=lost.append)
        engine.reply = answer(elapsed_ms=elapsed_ms)
        for _ in range(3):
            infill = await remote.infill(question())
            assert infill.text == "alpha" and 0 <= infill.timings_ms["network"] < 60_000
        assert lost == []
        await remote.close()


@pytest.mark.parametrize(
    "change", [{"score": float("nan")}, {"timings_ms": {"total": float("inf")}}, {"steps": 10**30}]
)
async def test_answer_with_an_invalid_number_is_refused_and_the_next_one_used(change: dict[str, Any]) -> None:
    async with scripted_engine() as engine:
        place = RemoteLocation(url=f"http://127.0.0.1:{engine.port}")
        remote = await connect_remote(place, on_progress=lambda _: None, on_closed=lambda _: None)
        engine.reply = answer(answer=Infill(text="alpha", finish=Finish.STABLE).to_wire() | change)
        with pytest.raises(NotNow):
            await remote.infill(question())
        engine.reply = answer()
        assert (await remote.infill(question())).text == "alpha"
        await remote.close()
