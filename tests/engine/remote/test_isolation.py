"""Users of one engine whose documents share names: none receives, cancels or reuses data of another."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from dgemma_engine.engine_client.connection_status import ConnectionStatus
from dgemma_engine.http_api.access.api_keys import ApiKeys
from dgemma_engine.http_api.http_settings import HttpSettings
from dgemma_engine.protocol.messages import Context, Draft, DraftSpan, Finish, Infill, OnDraft
from dgemma_engine.remote.connect import connect_remote
from dgemma_engine.remote.remote_engine import RemoteEngine
from dgemma_engine.remote.remote_location import RemoteLocation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.http_api.running_server import FREE_PORT, AnsweringEngine, running_server
from tests.engine.remote.elsewhere import question

KEYS = {"ann": "a" * 16, "bob": "b" * 16}
# The last two share a key: two machines, or two windows of one user.
USERS = {"ann": "ann", "bob": "bob", "bob again": "bob"}
DOCUMENTS = ("file:///w/a.py", "untitled:Untitled-1")

MOVES = st.lists(
    st.tuples(st.sampled_from(list(USERS)), st.sampled_from(DOCUMENTS), st.sampled_from(["ask", "cancel", "wait"])),
    min_size=4,
    max_size=24,
)


class EchoingEngine(AnsweringEngine):
    """Answers with the text of the request; a newer request of a document ends the older one, as in the real engine."""

    def __init__(self) -> None:
        super().__init__()
        self.newest: dict[str, int] = defaultdict(int)

    async def infill(self, context: Context, on_draft: OnDraft | None = None) -> Infill | ConnectionStatus:
        self.contexts.append(context)
        self.newest[context.document] += 1
        number = self.newest[context.document]
        for step in range(1, 4):
            await asyncio.sleep(0.004)
            if self.newest[context.document] != number:
                return Infill(text="", finish=Finish.CANCELLED)
            if on_draft is not None:
                spans = (DraftSpan(text=context.prefix, confidence=1.0, settled=True),)
                on_draft(Draft(request="", step=step, text=context.prefix, spans=spans))
        return Infill(text=context.prefix, finish=Finish.STABLE, score=0.5)


class User:
    """One language server and its requests."""

    def __init__(self, name: str, remote: RemoteEngine) -> None:
        self.name = name
        self.remote = remote
        self.asked: list[tuple[str, str, asyncio.Task[Infill], list[Draft]]] = []

    def ask(self, document: str) -> None:
        # Long, so that it is sent as changes to the previous text.
        prefix = f"{self.name}: {'same in all ' * 40}{len(self.asked)}"
        drafts: list[Draft] = []
        task = asyncio.create_task(self.remote.infill(question(prefix, document), drafts.append))
        self.asked.append((document, prefix, task, drafts))

    def cancel(self) -> None:
        if self.asked:
            self.asked[-1][2].cancel()

    async def check(self) -> None:
        last = {document: prefix for document, prefix, _, _ in self.asked}
        for document, prefix, task, drafts in self.asked:
            assert {draft.text for draft in drafts} <= {prefix}
            try:
                infill = await task
            except asyncio.CancelledError:
                continue
            is_newest = last[document] == prefix
            assert infill.text == prefix or (infill.text == "" and not is_newest), (
                "only the same user's next request ends one"
            )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=MOVES)
async def test_users_share_no_text_drafts_or_cancellations(tmp_path: Path, moves: Any) -> None:
    keys = ApiKeys.read(_key_file(tmp_path), {})
    http = HttpSettings(bind=FREE_PORT.bind, keys=keys, num_at_once=8)
    async with running_server(EchoingEngine(), http) as server, AsyncExitStack() as stack:
        users: dict[str, User] = {}
        for name, key in USERS.items():
            file = tmp_path / key
            file.write_text(KEYS[key])
            location = RemoteLocation(url=server.url, key_file=str(file))
            remote = await connect_remote(location, on_progress=lambda _: None, on_closed=lambda _why: None)
            stack.push_async_callback(remote.close)
            users[name] = User(name, remote)
        for name, document, move in moves:
            if move == "ask":
                users[name].ask(document)
            elif move == "cancel":
                users[name].cancel()
            else:
                await asyncio.sleep(0.006)
        for user in users.values():
            await user.check()
        # Prompt caches are kept by document, so no two users may share one.
        owners: dict[str, set[str]] = defaultdict(set)
        for context in server.engine.contexts:
            owners[context.document].add(context.prefix.partition(":")[0])
        assert all(len(names) == 1 for names in owners.values())


def _key_file(folder: Path) -> Path:
    file = folder / "keys"
    file.write_text("".join(f"{name} {key}\n" for name, key in KEYS.items()))
    return file


async def test_another_users_text_cannot_be_requested_by_its_checksum(tmp_path: Path) -> None:
    keys = ApiKeys.read(_key_file(tmp_path), {})
    async with running_server(EchoingEngine(), HttpSettings(bind=FREE_PORT.bind, keys=keys)) as server:
        remotes = []
        for name in ("ann", "bob"):
            (tmp_path / name).write_text(KEYS[name])
            location = RemoteLocation(url=server.url, key_file=str(tmp_path / name))
            remotes.append(await connect_remote(location, on_progress=lambda _: None, on_closed=lambda _why: None))
        ann, bob = remotes
        secret = question("the secret of ann " * 30)
        await ann.infill(secret)
        # Bob has the checksum of the text, and even the session.
        bob._session, bob._known = ann._session, ann._known
        infill = await bob.infill(question("the secret of ann " * 29))
        assert infill.text == "the secret of ann " * 29, "the whole text had to be sent"
        assert len(bob._known._last.items()) == 1
        for remote in remotes:
            await remote.close()
