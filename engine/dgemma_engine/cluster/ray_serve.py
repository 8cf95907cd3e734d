"""`dgemma-engine serve --ray CONFIG`: starts Ray on this machine, or joins one, and serves until a signal."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import ray
from ray import serve
from ray.serve.context import _get_global_client  # pyright: ignore[reportPrivateUsage]
from ray.serve.schema import ApplicationStatus, ServeDeploySchema

from dgemma_engine.cluster.configuration import read_configuration, require_free_port
from dgemma_engine.errors import EngineUnavailable

_NAMESPACE = "serve"
# The least that Ray takes: no question goes through its object store.
_OBJECT_STORE_BYTES = 80 * 2**20
_POLL_S = 0.5
_BAD = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)
_OWN_ERROR = re.compile(r"dgemma_engine\.errors\.\w+: (.+)")
_TOKEN = Path("~/.ray/auth_token")


def serve_configuration(path: Path, *, say: Callable[[str], None], temporary: Path) -> None:
    """Deploys a configuration and serves until SIGTERM or SIGINT; then takes it down.

    Args:
        path: of the configuration.
        say: receives lines for a person.
        temporary: for Ray's files, in a folder that only this user can open: Ray opens its own to everyone.

    Raises:
        WrongUsage: the configuration cannot be used.
        PortInUse: another program listens on its address.
        EngineUnavailable: no replica could be started; the message is the engine's own sentence.
    """
    configuration = read_configuration(path)
    address = os.environ.get("RAY_ADDRESS")
    if address is None:
        require_free_port(configuration)
    # Ray makes the file of its token readable by everyone.
    before = os.umask(0o077)
    try:
        _start_ray(address, temporary)
        _close_token()
    except (RuntimeError, ConnectionError, ValueError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise EngineUnavailable(f"Ray cannot be started or joined ({reason}); its logs are in {temporary}") from None
    finally:
        os.umask(before)
    try:
        _deploy(configuration, say)
        options = configuration.http_options
        say(f"listening on http://{options.host}:{options.port}")
        say(f"metrics on http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics")
        _wait_for_signal()
    finally:
        if address is None:
            serve.shutdown()
        ray.shutdown()


def failure_of(message: str) -> str:
    """Returns the engine's own sentence in what Ray says of a deployment that failed; else its last line."""
    found = _OWN_ERROR.findall(message)
    if found:
        return found[-1].strip()
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def _start_ray(address: str | None, temporary: Path) -> None:
    if address is not None:
        ray.init(address=address, namespace=_NAMESPACE, log_to_driver=False)
        return
    ray.init(
        namespace=_NAMESPACE,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        _temp_dir=str(temporary),
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
    )


def _close_token() -> None:
    token = _TOKEN.expanduser()
    if token.exists():
        token.chmod(0o600)


def _deploy(configuration: ServeDeploySchema, say: Callable[[str], None]) -> None:
    """Starts replicas and waits for them; says what Ray waits for, such as cards that there are none of."""
    serve.start(proxy_location=configuration.proxy_location, http_options=configuration.http_options.model_dump())
    # What `serve run` and `serve deploy` do with a file; Ray has no other function for it.
    client = _get_global_client()
    assert client is not None, "it was started above"
    client.deploy_apps(configuration)
    names, said = [application.name for application in configuration.applications], set[str]()
    while True:
        found = serve.status().applications
        states = [found[name] for name in names if name in found]
        for state in states:
            if state.status in _BAD:
                messages = [state.message, *(one.message for one in state.deployments.values())]
                raise EngineUnavailable(failure_of("\n".join(messages)))
        waiting = {one.message for state in states for one in state.deployments.values() if one.message} - said
        said |= waiting
        for message in sorted(waiting):
            say(" ".join(message.split()))
        if len(states) == len(names) and all(state.status is ApplicationStatus.RUNNING for state in states):
            return
        time.sleep(_POLL_S)


def _wait_for_signal() -> None:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ended.set())
    ended.wait()
