"""How long a request waits for a connection: for another machine until its deadline, for this machine longer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.engine_client.connection_status import ConnectionState
from dgemma_engine.protocol.messages import Infill

from dgemma_lsp.documents.store import Document
from dgemma_lsp.request import Request, Trigger
from dgemma_lsp.session import Session
from tests.lsp.fake_engine import FakeConnector
from tests.lsp.quiet_session import quiet_session

URI = "file:///w/a.py"
ELSEWHERE: Any = {"engine": {"url": "http://127.0.0.1:9"}}


class SlowConnector(FakeConnector):
    """Connects once a test lets it."""

    def __init__(self) -> None:
        super().__init__(answers={"": "y"})
        self.may_connect = asyncio.Event()

    async def connect(self, **callbacks: Any) -> Any:
        await self.may_connect.wait()
        return await super().connect(**callbacks)


def asking(session: Session, *, deadline_ms: float) -> asyncio.Task[Any]:
    text = "x = "
    session.documents.open(Document(uri=URI, version=1, language="python", text=text))
    request = Request(
        uri=URI, version=1, text=text, offset=len(text), path="a.py", language="python", trigger=Trigger.INVOKED,
        deadline_ms=deadline_ms,
    )  # fmt: skip
    return asyncio.create_task(session.answer(request))


async def test_key_is_answered_by_its_deadline_while_another_machine_is_silent(tmp_path: Path) -> None:
    session = quiet_session(tmp_path, SlowConnector())
    session.initialize(ELSEWHERE)
    async with asyncio.timeout(5):
        assert await asking(session, deadline_ms=50) == ()
    assert session._connection.status.state is ConnectionState.STARTING
    await session.close()


async def test_key_waits_for_an_engine_of_this_machine_that_starts(tmp_path: Path) -> None:
    connector = SlowConnector()
    session = quiet_session(tmp_path, connector)
    session.initialize({})
    answer = asking(session, deadline_ms=50)
    await asyncio.sleep(0.2)
    connector.may_connect.set()
    async with asyncio.timeout(5):
        assert [one.inserted for one in await answer] == ["y"]
    await session.close()


async def test_engine_elsewhere_is_given_what_connecting_left_of_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = SlowConnector()
    session = quiet_session(tmp_path, connector)
    session.initialize(ELSEWHERE)
    asked = list[float]()
    own = session._connection.infill

    async def infill(context: Any, on_draft: Any = None) -> Infill | Any:
        asked.append(context.deadline_ms)
        return await own(context, on_draft)

    monkeypatch.setattr(session._connection, "infill", infill)
    answer = asking(session, deadline_ms=10_000)
    await asyncio.sleep(0.1)
    connector.may_connect.set()
    assert [one.inserted for one in await answer] == ["y"]
    # The deadline begins shortly after the request.
    assert 0 < asked[0] <= 9_950
    await session.close()
