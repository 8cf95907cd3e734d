"""The Ray Serve application that `import_path` of a configuration names.

    import_path: dgemma_engine.cluster.application:build

The application of the HTTP server runs in the replica itself, so that a question takes one hop from Ray's proxy, and a
session goes to the replica that has its documents warm: by consistent hashing of the header `x-session-id`.
"""

# Ray reads the signatures of what it calls at run time: no postponed annotations here.
import logging
import os
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

from ray import serve
from ray._common.tls_utils import add_port_to_grpc_server
from ray.serve import Application
from ray.serve._private import replica as rays_replica
from ray.util import get_node_ip_address
from starlette.types import ASGIApp

from dgemma_engine.checkpoint.builtin import require_model
from dgemma_engine.cluster.arguments import EngineArguments, ReplicaLimits, read_arguments
from dgemma_engine.cluster.quiet_logs import QUIET
from dgemma_engine.cluster.ray_meter import RayMeter
from dgemma_engine.cluster.replica import Replica
from dgemma_engine.model_store.choice import choose_model
from dgemma_engine.serving.engine_loading import load_engine
from dgemma_engine.serving.infill_engine import InfillEngine

NAME = "Engine"
"""Of the deployment, by which a configuration changes its options."""
_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
# The application's own queue is the only one: it takes documents, callers and deadlines into account, Ray's does not.
_MOST_ONGOING, _MOST_QUEUED = 256, 64
_RETRY_AFTER_S = 1


OPTIONS: dict[str, Any] = {
    "name": NAME,
    "max_ongoing_requests": _MOST_ONGOING,
    "max_queued_requests": _MOST_QUEUED,
    "backpressure_config": {"status_code": 429, "retry_after_s": _RETRY_AFTER_S},
    # A new replica answers before the old one ends; that needs room for one more.
    "max_surge_percent": 100,
    "max_constructor_retry_count": 2,
    "health_check_period_s": 2,
    "health_check_timeout_s": 10,
    "graceful_shutdown_timeout_s": 10,
    # A full replica keeps its sessions: no other one has their prompts in its cache.
    "request_router_config": {"request_router_class": _ROUTER, "request_router_kwargs": {"num_fallback_replicas": 0}},
    "logging_config": QUIET,
}
"""Of the deployment; a configuration may change each."""


class EngineReplica:
    """A `Replica` as Ray Serve calls it.

    Args:
        arguments: fields of `EngineArguments`.
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        _close_own_port()
        # The engine's lines go where Serve's go, as Serve writes them.
        logging.getLogger("dgemma_engine").parent = logging.getLogger("ray.serve")
        checked = read_arguments(arguments)
        load = partial(self.load, checked)
        self._replica = Replica(checked, ReplicaLimits(), load=load, meter=RayMeter(), end=_end)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._replica.app

    @staticmethod
    def load(arguments: EngineArguments, report: Callable[[int, str], None]) -> InfillEngine:
        """Loads the model; on the device thread."""
        choice = choose_model(arguments.model or None, os.environ)
        require_model(choice.runs)
        prompt_bytes = int(arguments.prompt_cache_gib * 2**30)
        return load_engine(choice.runs, device=arguments.device, report=report, team_prompt_bytes=prompt_bytes)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """See `Replica.reconfigure`."""
        self._replica.reconfigure(user_config)

    async def check_health(self) -> None:
        """See `Replica.check_health`."""
        await self._replica.check_health()

    async def infill(self, question: dict[str, Any], session: str) -> AsyncGenerator[dict[str, Any], None]:
        """See `Replica.infill`; called with `handle.options(stream=True, session_id=session)`."""
        async for message in self._replica.infill(question, session):
            yield message

    def __del__(self) -> None:
        if (replica := getattr(self, "_replica", None)) is not None:
            replica.close()


def build(args: dict[str, Any]) -> Application:
    """Returns the application of a configuration.

    Args:
        args: fields of `EngineArguments`.

    Raises:
        WrongUsage: an unknown field or a wrong value.
    """
    return application_of(EngineReplica, args)


def application_of(replica: type[EngineReplica], args: dict[str, Any], *, num_replicas: int = 1) -> Application:
    """Returns the application of a kind of replica; see `build`. A configuration may override their number."""
    arguments = read_arguments(args)
    resources = {"num_cpus": arguments.cpus, "num_gpus": arguments.gpus}
    deployment = serve.deployment(num_replicas=num_replicas, ray_actor_options=resources, **OPTIONS)(
        serve.ingress()(replica)
    )
    return deployment.bind(args)


def _close_own_port() -> None:
    """Makes Ray open the replica's own port, for calls of other deployments, on the machine's address in Ray only.

    Ray has no option for it, and opens it after the constructor, on all addresses.
    """
    host = get_node_ip_address()
    address = f"[{host}]:0" if ":" in host else f"{host}:0"

    def add_port(server: Any, _address: str) -> int:
        return add_port_to_grpc_server(server, address)

    rays_replica.add_port_to_grpc_server = add_port  # pyright: ignore[reportPrivateImportUsage]


def _end() -> None:
    os._exit(1)
