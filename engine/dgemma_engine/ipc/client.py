"""Connects a client to the engine: attaches to the one that runs, or starts it.

Needs no torch. Every fault is an `EngineError`; an engine that is still loading is not a fault.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Self, cast

from dgemma_engine.errors import (
    EngineFault,
    EngineSilent,
    EngineUnavailable,
    NewerEngine,
    NoEngine,
    OlderEngine,
    SocketRefused,
)
from dgemma_engine.ipc.connection import SocketConnection
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.json_rpc import STREAM_LIMIT_BYTES
from dgemma_engine.ipc.launcher import Launch, engine_command
from dgemma_engine.ipc.lock_file import holder_pid
from dgemma_engine.ipc.silent_engine import end_unused, find_silent, no_answer
from dgemma_engine.protocol.status_messages import STATUS, Progress

_INSTALL_HINT = "is it installed? pip install 'dgemma-lsp[engine]'"
# Attempts until an older engine counts as used by others, and the longest pause after the first of them.
_IN_USE_ATTEMPTS = 6
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
_END_PATIENCE_S = 10.0


class EngineClient(SocketConnection):
    """A connection to a running engine, made by `attach`, `attach_any` or `attach_or_start`."""

    @classmethod
    async def attach(
        cls,
        location: EngineLocation,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        on_closed: Callable[[], None] | None = None,
        timeout_s: float = 5.0,
    ) -> Self:
        """Connects to the engine that runs at `location`; it may still be loading.

        Args:
            location: where to look for it.
            on_progress: receives the engine's progress on connecting and whenever it changes.
            on_closed: called once when the connection ends without `close`.
            timeout_s: most seconds until an engine that accepted the connection sends its progress.

        Raises:
            NoEngine: none runs there.
            EngineSilent: one runs there and cannot be reached.
            OlderEngine: it speaks an older protocol.
            NewerEngine: it speaks a newer protocol.
            EngineUnavailable: it sends nothing.
            SocketRefused: the directory or the socket belongs to someone else.
        """
        client = await cls.attach_any(location, on_progress=on_progress, timeout_s=timeout_s)
        try:
            client.hello.verify()
        except EngineUnavailable:
            await client.close()
            raise
        # Only now: an attempt that fails (on an engine that is just ending, say) raises and calls nothing.
        client._on_closed = on_closed
        if client._reading.done() and on_closed is not None:
            on_closed()
        return client

    @classmethod
    async def attach_any(
        cls,
        location: EngineLocation,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        timeout_s: float = 5.0,
    ) -> Self:
        """Connects to the engine that runs at `location`, of whatever version: to read its status or to end it.

        Args:
            location: see `attach`.
            on_progress: see `attach`.
            timeout_s: see `attach`.

        Raises:
            NoEngine: none runs there.
            EngineSilent: one runs there and cannot be reached.
            EngineUnavailable: it sends nothing.
            SocketRefused: the directory or the socket belongs to someone else.
        """
        location.verify()
        if (silent := find_silent(location)) is not None:
            raise EngineSilent(str(silent))
        try:
            reader, writer = await asyncio.open_unix_connection(location.socket, limit=STREAM_LIMIT_BYTES)
        except OSError as error:
            raise NoEngine(
                f"no engine answers on {location.socket}; start one with: {location.start_command}"
            ) from error
        client = cls(location, reader, writer, on_progress=on_progress)
        try:
            await client._await_progress(lambda _: True, timeout_s)
        except TimeoutError:
            await client.close()
            raise no_answer(location, timeout_s) from None
        except BaseException:
            await client.close()
            raise
        return client

    @classmethod
    async def attach_or_start(
        cls,
        location: EngineLocation,
        *,
        command: Sequence[str] | None = None,
        idle_minutes: float | None = None,
        unload_minutes: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_closed: Callable[[], None] | None = None,
        timeout_s: float = 30.0,
    ) -> Self:
        """Connects to the engine at `location`, after starting one when none answers. Does not wait for the model.

        An engine of an older version, or one that cannot be reached, is ended first unless other clients use it.

        Args:
            location: where the engine lives.
            command: command line that runs it; None is `engine_command`.
            idle_minutes: see `engine_command`.
            unload_minutes: likewise.
            on_progress: see `attach`.
            on_closed: see `attach`.
            timeout_s: most seconds until a new process answers.

        Raises:
            OlderEngine: the one that runs speaks an older protocol, and others use it.
            EngineSilent: the one that runs cannot be reached, and others use it.
            NewerEngine: the one that runs speaks a newer protocol.
            EngineUnavailable: it ended at once, or does not answer in time.
            SocketRefused: the directory cannot be used.
        """
        loop = asyncio.get_running_loop()
        give_up_s, num_attempts = loop.time() + timeout_s, 0
        launch: Launch | None = None
        while True:
            try:
                return await cls.attach(location, on_progress=on_progress, on_closed=on_closed)
            except (SocketRefused, NewerEngine):
                raise
            except OlderEngine:
                num_attempts += 1
                if not await cls._end_unused(location) and num_attempts >= _IN_USE_ATTEMPTS:
                    raise
                # Clients of this version that attach at the same time count each other; so they attach at times further
                # and further apart, however long an attempt takes on a busy machine.
                most_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**num_attempts)
                await asyncio.sleep(random.SystemRandom().uniform(0.02, most_s))
                continue
            except EngineSilent:
                if loop.time() > give_up_s or not await end_unused(location):
                    raise
                continue
            except EngineUnavailable:
                if loop.time() > give_up_s:
                    raise no_answer(location, timeout_s) from None
            if launch is None or launch.exit_code == 0:
                # Exit code 0 before an answer: another engine was ending or starting; ask again.
                location.prepare()
                options = {"idle_minutes": idle_minutes, "unload_minutes": unload_minutes}
                launch = _launch(location, command or engine_command(location, **options))
            elif launch.exit_code is not None:
                reason = launch.last_line().removeprefix("dgemma-engine: ") or f"exit code {launch.exit_code}"
                if launch.exit_code == 2:
                    # Wrong usage: the reason has the remedy.
                    raise EngineUnavailable(reason)
                raise EngineUnavailable(f"the engine ended at once ({reason}); {_INSTALL_HINT}; log: {location.log}")
            await asyncio.sleep(0.05)

    @classmethod
    async def _end_unused(cls, location: EngineLocation) -> bool:
        """Ends an engine that has no other client and waits for its lock; returns whether it had none."""
        try:
            async with await cls.attach_any(location) as client:
                # Not read as a `Status`: an older version sends other fields, but has this one.
                status = await client._request(STATUS, {}, lambda wire: wire)
                if not isinstance(status, dict) or cast("dict[str, object]", status).get("clients") != 1:
                    return False
                await client.stop_engine()
        except (EngineFault, EngineUnavailable):
            return False
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + _END_PATIENCE_S
        while holder_pid(location.lock) is not None:
            if loop.time() > give_up_s:
                break
            await asyncio.sleep(0.02)
        return True


def _launch(location: EngineLocation, command: Sequence[str]) -> Launch:
    try:
        return Launch(location, command)
    except OSError as error:
        raise EngineUnavailable(f"{command[0]}: cannot be run ({error.strerror}); {_INSTALL_HINT}") from error
