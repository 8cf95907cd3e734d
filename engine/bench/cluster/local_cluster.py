"""A local Ray cluster with replicas of one application, and the killing of replicas, for measurements."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import ray
from dgemma_engine.remote.connect import connect_remote
from dgemma_engine.remote.remote_engine import RemoteEngine
from dgemma_engine.remote.remote_location import RemoteLocation
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

_OBJECT_STORE_BYTES = 80 * 2**20
_REPLICA = "ray::ServeReplica:"


@dataclass
class LocalCluster:
    """The running cluster.

    Attributes:
        port: of HTTP.
        handle: of the deployment.
    """

    port: int
    handle: DeploymentHandle = field(repr=False)

    def replica_pids(self) -> list[int]:
        """Returns the processes of the replicas, in no order."""
        children = psutil.Process().children(recursive=True)
        return [one.pid for one in children if one.is_running() and _title(one).startswith(_REPLICA)]

    @asynccontextmanager
    async def remote(self) -> AsyncGenerator[RemoteEngine]:
        """Gives a client that is connected over HTTP."""
        location = RemoteLocation(url=f"http://127.0.0.1:{self.port}")
        remote = await connect_remote(location, on_progress=lambda _: None, on_closed=lambda _why: None)
        try:
            yield remote
        finally:
            await remote.close()

    async def kill_one_now_and_then(self, period_s: float, killed: list[float]) -> None:
        """Kills the oldest replica in every period, until it is cancelled; appends the times to `killed`."""
        while True:
            await asyncio.sleep(period_s)
            alive = sorted(self.replica_pids(), key=lambda pid: psutil.Process(pid).create_time())
            # The last replica that answers is left: one of two machines stays up while the other one starts.
            if len(alive) > 1:
                os.kill(alive[0], signal.SIGKILL)
                killed.append(time.monotonic())


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextmanager
def local_cluster(application: Application, *, port: int) -> Generator[LocalCluster]:
    """Runs an application for as long as the block lasts.

    Args:
        application: to run.
        port: of HTTP, on this machine only.
    """
    # Replicas import what this process imports.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=8,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _temp_dir=str(Path(folder) / "ray"),
            _node_ip_address="127.0.0.1",
            log_to_driver=False,
            namespace="serve",
        )
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port, "request_timeout_s": 60})
            logging.getLogger("ray.serve").setLevel(logging.WARNING)
            handle = serve.run(application, name="dgemma", route_prefix="/")
            yield LocalCluster(port=port, handle=handle)
            serve.shutdown()
        finally:
            ray.shutdown()
