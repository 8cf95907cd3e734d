"""`dgemma-engine serve --ray CONFIG`: starts Ray on this machine, or joins one, and serves until a signal."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.context import _get_global_client  # pyright: ignore[reportPrivateUsage]
from ray.serve.schema import ApplicationStatus, LoggingConfig, ServeDeploySchema

from dgemma_engine.cluster.configuration import read_configuration, require_free_port, require_keys_and_models
from dgemma_engine.cluster.placement import require_room
from dgemma_engine.cluster.quiet_logs import QUIET
from dgemma_engine.cluster.ray_connection import connected_ray
from dgemma_engine.cluster.signals import Signals
from dgemma_engine.errors import EngineError, EngineUnavailable

_POLL_S = 0.5
_BAD = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)
_OWN_ERROR = re.compile(r"dgemma_engine\.errors\.\w+: (.+)")


def serve_configuration(path: Path, *, say: Callable[[str], None], temporary: Path, signals: Signals) -> None:
    """Deploys a configuration and serves until SIGTERM or SIGINT; then takes it down. SIGHUP reads the file again.

    Args:
        path: of the configuration.
        say: receives lines for the user; what Ray prints on standard output meanwhile goes to a file.
        temporary: for Ray's files, in a folder that only this user can open: Ray opens its own to everyone.
        signals: of this process.

    Raises:
        WrongUsage: the configuration cannot be used.
        PortInUse: another program listens on its address.
        EngineUnavailable: no replica could be started; the message is the engine's own sentence.
    """
    configuration = read_configuration(path)
    require_keys_and_models(configuration)
    address = os.environ.get("RAY_ADDRESS", "")
    if not address:
        require_free_port(configuration)
    if signals.is_ended:
        return
    with connected_ray(address, temporary, signals):
        if not address:
            require_room(configuration, ray.cluster_resources())
        try:
            _serve(configuration, path, say, signals)
        finally:
            if not address:
                serve.shutdown()


def failure_of(message: str) -> str:
    """Returns the engine's own sentence in what Ray says of a deployment that failed; else its last line."""
    found = _OWN_ERROR.findall(message)
    if found:
        return found[-1].strip()
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def _serve(configuration: ServeDeploySchema, path: Path, say: Callable[[str], None], signals: Signals) -> None:
    if signals.is_ended:
        return
    logs = configuration.logging_config or LoggingConfig.model_validate(QUIET)
    options = configuration.http_options
    try:
        serve.start(
            proxy_location=configuration.proxy_location,
            http_options=options.model_dump(),
            logging_config=logs.model_dump(),
        )
    except (RayError, TimeoutError) as error:
        raise EngineUnavailable(
            "Ray Serve's HTTP server did not start in time; end what else keeps this machine busy, then run "
            f"the command again ({_first_line(error)})"
        ) from error
    if not _deploy(configuration, say, signals):
        return
    say(f"listening on http://{options.host}:{options.port}")
    node = ray.nodes()[0]
    say(f"metrics on http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics")
    while signals.wait():
        _reload(path, options.model_dump(), say, signals)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _reload(path: Path, http_options: object, say: Callable[[str], None], signals: Signals) -> None:
    """Deploys the file as it is now; one that cannot be used changes nothing."""
    try:
        configuration = read_configuration(path)
        require_keys_and_models(configuration)
        if configuration.http_options.model_dump() != http_options:
            say("http_options stay as they are until the next start")
        if _deploy(configuration, say, signals):
            say("the configuration was read again")
    except EngineError as error:
        say(f"the configuration was not taken over: {error}")


def _deploy(configuration: ServeDeploySchema, say: Callable[[str], None], signals: Signals) -> bool:
    """Starts replicas and waits for them; says what Ray waits for. Returns False where a signal came first."""
    # What `serve run` and `serve deploy` do with a file; Ray has no other function for it.
    client = _get_global_client()
    assert client is not None, "serve.start was called before"
    client.deploy_apps(configuration)
    names, said = [application.name for application in configuration.applications], set[str]()
    while not signals.is_ended:
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
            return True
        time.sleep(_POLL_S)
    return False
