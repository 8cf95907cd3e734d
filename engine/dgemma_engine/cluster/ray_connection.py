"""This process's Ray: one of its own on this machine, or one that runs already. Ray's output goes to a file."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import ray

from dgemma_engine.cluster.session_folders import remove_ended, remove_own
from dgemma_engine.cluster.signals import Signals
from dgemma_engine.errors import EngineUnavailable

_NAMESPACE = "serve"
# The least that Ray takes: no question goes through its object store.
_OBJECT_STORE_BYTES = 80 * 2**20
_TOKEN = Path("~/.ray/auth_token")
# Longest waits for a listener, and for the first answer, of a Ray that runs already.
_CONNECT_S, _JOIN_S = 3.0, 12.0
_POLL_S = 0.02
_LOG = "driver.log"


@contextmanager
def connected_ray(address: str, temporary: Path, signals: Signals) -> Generator[None]:
    """Connects to Ray for as long as the block lasts.

    Args:
        address: of a Ray that runs, as `RAY_ADDRESS` has it; empty starts one, which ends with the block.
        temporary: for Ray's files, in a folder that only this user can open: Ray opens its own to everyone.
        signals: of this process, which Ray would take over.

    Raises:
        EngineUnavailable: Ray cannot be started, or none answers at the address within 15 s.
    """
    temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_ended(temporary)
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    is_over = threading.Event()
    with (temporary / _LOG).open("w", encoding="utf-8") as log, redirect_stdout(log):
        try:
            if address:
                _require_listener(address)
                _wait_for(_connecting(address, temporary, is_over), signals, patience_s=_JOIN_S)
            else:
                _wait_for(_connecting("", temporary, is_over), signals, patience_s=float("inf"))
        except TimeoutError:
            raise EngineUnavailable(f"RAY_ADDRESS={address}: no Ray answers there; is it Ray's port, 6379?") from None
        except (RuntimeError, ConnectionError, ValueError, OSError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise EngineUnavailable(
                f"Ray cannot be started or joined ({reason}); its logs are in {temporary}"
            ) from None
        try:
            yield
        finally:
            ray.shutdown()
            is_over.set()
    if not address:
        # After a fault the logs stay until the next start.
        remove_own(temporary, os.getpid())


def _connect(address: str, temporary: Path) -> None:
    if address:
        ray.init(address=address, namespace=_NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
        return
    # Ray makes the file of its token readable by everyone. The umask is that of all threads: the main one only waits
    # for this one meanwhile, and there is no other that creates files.
    before = os.umask(0o077)
    try:
        ray.init(
            namespace=_NAMESPACE,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _temp_dir=str(temporary),
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    finally:
        os.umask(before)
        token = _TOKEN.expanduser()
        if token.exists():
            token.chmod(0o600)


def _require_listener(address: str) -> None:
    """Raises `EngineUnavailable` where nothing listens at `HOST:PORT`: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()) or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or "no answer"
        raise EngineUnavailable(f"RAY_ADDRESS={address}: nothing listens there ({reason}); start Ray first") from None


def _connecting(address: str, temporary: Path, is_over: threading.Event) -> Future[None]:
    """Connects on another thread: on the main one Ray would handle SIGTERM itself."""
    done = Future[None]()

    def run() -> None:
        try:
            done.set_result(_connect(address, temporary))
        except BaseException as error:
            done.set_exception(error)
        # Linux ends Ray's processes with the thread that started them.
        is_over.wait()

    threading.Thread(target=run, name="ray-connect", daemon=True).start()
    return done


def _wait_for(done: Future[None], signals: Signals, *, patience_s: float) -> None:
    """Waits for a connection; a Ray of our own has to be there before it can be ended.

    Raises:
        TimeoutError: it takes longer than `patience_s`, or the end was asked for meanwhile.
        Exception: what connecting raises.
    """
    until_s = time.monotonic() + patience_s
    while not done.done():
        if time.monotonic() > until_s or (signals.is_ended and patience_s < float("inf")):
            raise TimeoutError
        time.sleep(_POLL_S)
    done.result()
