"""`dgemma-engine serve --ray` with two real engines: sessions stay, a killed replica is one retry, limits are kept."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil
import pytest
from dgemma_engine.protocol.messages import Context, Infill
from dgemma_engine.protocol.status_messages import Progress
from dgemma_engine.remote.connect import connect_remote
from dgemma_engine.remote.remote_engine import RemoteEngine
from dgemma_engine.remote.remote_location import RemoteLocation

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

KEY = "0123456789abcdef"
CONFIGURATION = """
proxy_location: HeadOnly
http_options: {{host: 127.0.0.1, port: {port}, request_timeout_s: 60}}
applications:
  - name: dgemma
    route_prefix: /
    import_path: dgemma_engine.cluster.application:build
    args: {{model: {model}, api_key_file: {keys}, cpus: 0.5}}
    deployments: [{{name: Engine, num_replicas: 2}}]
"""
TEXT = "def area(width, height):\n    return "


@dataclass(frozen=True)
class Cluster:
    port: int
    keys: Path
    home: Path
    metrics: str
    process: subprocess.Popen[str]

    @property
    def configuration(self) -> Path:
        return self.home / "team.yaml"

    def logs(self) -> dict[str, str]:
        """What Serve logged, by the name of the file."""
        return {path.name: path.read_text() for path in self.home.glob("run/ray/session_latest/logs/serve/*.log")}

    def reload(self) -> str:
        """Makes the server read the configuration again; returns the line that it prints."""
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGHUP)
        return self.process.stdout.readline()


def free_port() -> int:
    """Returns a free port outside the ephemeral ports, so that it is still free when Ray listens some seconds later."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 50):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    pytest.fail("no port is free")


def environment(home: Path) -> dict[str, str]:
    folders = os.pathsep.join(str(Path(name).resolve()) for name in (".", "engine", "kernels"))
    return os.environ | {"HOME": str(home), "DGEMMA_RUNTIME_DIR": str(home / "run"), "PYTHONPATH": folders}


def command(configuration: Path) -> list[str]:
    return [sys.executable, "-m", "dgemma_engine", "serve", "--ray", str(configuration)]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    # Paths of Ray's sockets must be short.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[Cluster]:
    keys, configuration = home / "keys", home / "team.yaml"
    keys.write_text(f"ann {KEY}\n")
    port = free_port()
    configuration.write_text(CONFIGURATION.format(port=port, keys=keys, model="tiny"))
    with subprocess.Popen(
        command(configuration), env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            said = process.stdout.readline()
            assert said == f"listening on http://127.0.0.1:{port}\n", said + process.stderr.read()
            metrics = process.stdout.readline().removeprefix("metrics on ").strip()
            yield Cluster(port=port, keys=keys, home=home, metrics=metrics, process=process)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    assert process.returncode == 0
    # A cluster that ends with a fault leaves its logs.
    assert not list((home / "run" / "ray").glob(f"session_2*_{process.pid}"))


async def connected(cluster: Cluster) -> RemoteEngine:
    key_file = cluster.home / "key"
    key_file.write_text(KEY)
    key_file.chmod(0o600)
    location = RemoteLocation(url=f"http://127.0.0.1:{cluster.port}", key_file=str(key_file))

    def forget(_progress: Progress) -> None:
        """Ignores the progress."""

    return await connect_remote(location, on_progress=forget, on_closed=lambda _why: None)


async def ask(engine: RemoteEngine, prefix: str, document: str = "a") -> Infill:
    return await engine.infill(
        Context(document=document, prefix=prefix, suffix="\n", deadline_ms=30_000, max_middle_tokens=8, insistent=True)
    )


async def test_session_stays_warm_and_outlives_its_replica(cluster: Cluster) -> None:
    engine = await connected(cluster)
    try:
        first = await ask(engine, TEXT)
        assert first.encoded_tokens == first.prompt_tokens > 4
        warm = [await ask(engine, TEXT + "width *"[:end]) for end in range(1, 6)]
        assert max(one.encoded_tokens for one in warm) <= 4
        home = (await engine.status()).pid
        assert {(await engine.status()).pid for _ in range(4)} == {home}

        asking = asyncio.create_task(ask(engine, TEXT + "width * h"))
        await asyncio.sleep(0.02)
        os.kill(home, signal.SIGKILL)
        assert (await asking).prompt_tokens > 0
        assert (await ask(engine, TEXT + "width * he")).prompt_tokens > 0
        assert (await engine.status()).pid != home
    finally:
        await engine.close()


async def test_two_sessions_of_one_name_do_not_share_a_prompt(cluster: Cluster) -> None:
    engines = [await connected(cluster) for _ in range(4)]
    try:
        found = [await ask(engine, TEXT + "height") for engine in engines]
        assert all(one.encoded_tokens == one.prompt_tokens for one in found)
    finally:
        for engine in engines:
            await engine.close()


@pytest.mark.parametrize(
    ("path", "key", "body", "status"),
    [
        ("/infill", "", b'{"input_prefix": "x = ", "input_suffix": ""}', 401),
        ("/infill", KEY, b"x" * 50_000_000, 413),
        ("/infill", KEY, b"{", 400),
        ("/nothing", KEY, b"{}", 404),
    ],
    ids=["no key", "50 MB", "no JSON", "no path"],
)
async def test_wrong_request_is_refused(cluster: Cluster, path: str, key: str, body: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{cluster.port}", timeout=60) as client:
        assert (await client.post(path, content=body, headers=headers)).status_code == status


async def test_metrics_count_answers_and_hold_no_text(cluster: Cluster) -> None:
    engine = await connected(cluster)
    try:
        await ask(engine, TEXT + "secret_of_ours")
    finally:
        await engine.close()
    async with httpx2.AsyncClient() as client, asyncio.timeout(60):
        # Ray exports every few seconds.
        while "ray_dgemma_encoded_tokens_total" not in (text := (await client.get(cluster.metrics)).text):
            await asyncio.sleep(0.5)
    assert all(f"ray_dgemma_{name}" in text for name in ("requests_total", "stage_ms_bucket", "prompt_tokens_total"))
    assert "secret_of_ours" not in text


def test_ray_listens_on_this_machine_only_and_its_files_are_private(cluster: Cluster) -> None:
    token = cluster.home / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE((cluster.home / "run").stat().st_mode) == 0o700
    processes = [psutil.Process(cluster.process.pid), *psutil.Process(cluster.process.pid).children(recursive=True)]
    listening = [one.laddr for process in processes for one in process.net_connections() if one.status == "LISTEN"]
    assert cluster.port in {address.port for address in listening}
    assert {address.ip for address in listening} <= {"127.0.0.1", "::ffff:127.0.0.1"}


async def status_of(cluster: Cluster, key: str) -> int:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{cluster.port}", timeout=60) as client:
        body, headers = {"input_prefix": "x = ", "input_suffix": ""}, {"Authorization": f"Bearer {key}"}
        return (await client.post("/infill", json=body, headers=headers)).status_code


async def test_invalid_configuration_and_key_file_are_reported_and_the_earlier_ones_stay(cluster: Cluster) -> None:
    # A replica that still starts would read the bad line as its first, and be replaced.
    text, pids = cluster.configuration.read_text(), await answering_pids(cluster)
    cluster.configuration.write_text(text.replace("num_replicas: 2", "num_replicas: 2, user_config: {max_reqs: 4}"))
    assert "was not taken over" in (said := cluster.reload()) and "unknown field `max_reqs`" in said
    cluster.keys.write_text(f"ann {KEY}\nbob short\n")
    async with asyncio.timeout(30):
        while not any("the earlier limits and keys stay" in log for log in cluster.logs().values()):
            await asyncio.sleep(0.5)
    assert [await status_of(cluster, KEY) for _ in range(4)] == [200] * 4
    assert replica_pids(cluster) == pids, warnings_of(cluster)
    cluster.keys.write_text(f"ann {KEY}\nbob {KEY[::-1]}\n")
    cluster.configuration.write_text(text.replace("num_replicas: 2", "num_replicas: 2, user_config: {max_requests: 4}"))
    assert cluster.reload() == "the configuration was read again\n"
    async with asyncio.timeout(30):
        while [await status_of(cluster, KEY[::-1]) for _ in range(4)] != [200] * 4:
            await asyncio.sleep(0.5)
    assert replica_pids(cluster) == pids, warnings_of(cluster)


async def answering_pids(cluster: Cluster) -> set[int]:
    """Waits until both replicas answer, each for some of the sessions; returns their processes."""
    async with asyncio.timeout(120):
        while True:
            engines = [await connected(cluster) for _ in range(8)]
            try:
                pids = {(await engine.status()).pid for engine in engines}
            finally:
                for engine in engines:
                    await engine.close()
            if pids == replica_pids(cluster):
                return pids
            await asyncio.sleep(0.5)


def warnings_of(cluster: Cluster) -> str:
    """Returns what Serve logged, a line each, for the message of a failure."""
    return "\n".join(f"{name}: {line}" for name, log in cluster.logs().items() for line in log.splitlines())


def replica_pids(cluster: Cluster) -> set[int]:
    """Returns the processes of both replicas; a replica rewrites its title at each request and briefly has none."""
    pids = set[int]()
    for _ in range(300):
        children = psutil.Process(cluster.process.pid).children(recursive=True)
        pids = {one.pid for one in children if "ServeReplica:" in " ".join(one.cmdline())}
        if len(pids) == 2:
            return pids
        time.sleep(0.1)
    pytest.fail(f"two replicas were expected, found: {pids}")


def test_logs_are_json_without_a_line_per_request(cluster: Cluster) -> None:
    logs = cluster.logs()
    assert any(name.startswith("proxy") for name in logs) and any(name.startswith("controller") for name in logs)
    lines = [line for log in logs.values() for line in log.splitlines()]
    assert all(json.loads(line)["levelname"] in ("WARNING", "ERROR") for line in lines)
    assert not any("/infill" in line for line in lines)


@pytest.mark.parametrize("delay_s", [0.5, 2.5, 5.0])
def test_sigterm_soon_after_the_start_ends_cleanly(home: Path, delay_s: float) -> None:
    port = free_port()
    (keys := home / "keys2").write_text(f"ann {KEY}\n")
    (configuration := home / "early.yaml").write_text(CONFIGURATION.format(port=port, keys=keys, model="tiny"))
    variables = environment(home) | {"DGEMMA_RUNTIME_DIR": str(home / "early")}
    with subprocess.Popen(
        command(configuration), env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(delay_s)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) in ((0, ""), (-signal.SIGTERM, ""))
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_model_that_cannot_be_loaded_is_reported_in_one_sentence(tmp_path: Path, home: Path) -> None:
    keys, configuration = tmp_path / "keys", tmp_path / "team.yaml"
    keys.write_text(f"ann {KEY}\n")
    port = free_port()
    broken = tmp_path / "broken"
    shutil.copytree("engine/dgemma_engine/embedded", broken)
    (broken / "model.safetensors").write_bytes(bytes(100))
    configuration.write_text(CONFIGURATION.format(port=port, keys=keys, model=broken))
    ended = subprocess.run(command(configuration), env=environment(home), capture_output=True, text=True, timeout=200)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"dgemma-engine: {broken}/model.safetensors")
