"""A file for `serve --ray`: checked whole before anything starts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from dgemma_engine.cluster.arguments import read_limits
from dgemma_engine.cluster.configuration import read_configuration, require_free_port, require_keys_and_models
from dgemma_engine.cluster.examples import EXAMPLES as NAMES
from dgemma_engine.cluster.examples import example
from dgemma_engine.cluster.quiet_logs import QUIET
from dgemma_engine.cluster.ray_serve import failure_of
from dgemma_engine.errors import PortInUse, WrongUsage

EXAMPLES = sorted(Path("engine/deploy").glob("*.yaml"))
GOOD = """
http_options: {host: 127.0.0.1, port: 8123}
applications:
  - name: dgemma
    import_path: dgemma_engine.cluster.application:build
    args: {model: tiny, allow_anyone: true}
    deployments:
      - name: Engine
        num_replicas: 2
        ray_actor_options: {num_cpus: 1}
        user_config: {max_requests: 8}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "teams.yaml"


def test_good_file_is_read(path: Path) -> None:
    path.write_text(GOOD)
    configuration = read_configuration(path)
    assert configuration.applications[0].args == {"model": "tiny", "allow_anyone": True}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_good(example: Path) -> None:
    assert read_configuration(example).applications


def test_there_are_examples() -> None:
    assert tuple(path.stem for path in EXAMPLES) == NAMES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_printed_logs_no_requests_and_answers_eight_at_once_on_a_card(path: Path) -> None:
    assert example(path.stem) == path.read_text()
    configuration = read_configuration(path)
    assert configuration.logging_config is not None
    assert configuration.logging_config.model_dump(include=set(QUIET)) == QUIET
    application = configuration.applications[0]
    if application.args["device"] == "cuda":
        assert read_limits(application.deployments[0].user_config).num_at_once == 8


def test_file_of_keys_that_cannot_be_used_is_reported_before_anything_starts(path: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    path.write_text(GOOD.replace("allow_anyone: true", f"api_key_file: {keys}"))
    with pytest.raises(WrongUsage, match="keys: cannot be read"):
        require_keys_and_models(read_configuration(path))
    keys.write_text("ann 0123456789abcdef\nbob short\n")
    with pytest.raises(WrongUsage, match="line 2: a key must be 16 to 512"):
        require_keys_and_models(read_configuration(path))
    keys.write_text("ann 0123456789abcdef\n")
    require_keys_and_models(read_configuration(path))


def test_model_that_is_not_there_is_reported_before_anything_starts(path: Path) -> None:
    path.write_text(GOOD.replace("model: tiny", "model: /nonexistent"))
    with pytest.raises(WrongUsage, match="/nonexistent: no such folder"):
        require_keys_and_models(read_configuration(path))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("model: tiny", "modle: tiny", "args: Object contains unknown field `modle`"),
        ("max_requests: 8", "max_request: 8", "user_config: Object contains unknown field `max_request`"),
        ("num_replicas: 2", "num_replica: 2", "applications.0.deployments.0.num_replica is no field of Ray Serve"),
        ("port: 8123", "prot: 8123", "http_options.prot is no field of Ray Serve"),
        ("num_cpus: 1", "cpus: 1", "applications.0.deployments.0.ray_actor_options.cpus is no field of Ray Serve"),
        ("applications:", "apps:", "applications: Field required"),
        ("port: 8123", "port: many", "http_options.port: Input should be a valid integer"),
        ("cluster.application:build", "cluster.app:build", "no application has import_path dgemma_engine.cluster"),
        ("allow_anyone: true", "allow_anyone: false", "name an api_key_file, or set allow_anyone"),
        ("http_options: {", "http_options: {{", "is no YAML"),
    ],
)
def test_wrong_field_is_named(path: Path, before: str, after: str, said: str) -> None:
    path.write_text(GOOD.replace(before, after))
    with pytest.raises(WrongUsage) as caught:
        read_configuration(path)
    message = str(caught.value)
    assert said in message and str(path) in message and "\n" not in message


@pytest.mark.parametrize("text", ["", "- a\n", "text"])
def test_file_without_a_table_is_refused(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(WrongUsage, match="holds no table"):
        read_configuration(path)


def test_file_that_is_missing_or_no_text_is_refused(path: Path) -> None:
    with pytest.raises(WrongUsage, match="cannot be read"):
        read_configuration(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(WrongUsage, match="it is not UTF-8"):
        read_configuration(path)


def test_port_in_use_is_reported_before_anything_starts(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path.write_text(GOOD.replace("8123", str(port)))
        with pytest.raises(PortInUse, match=f"127.0.0.1:{port} is in use; choose another port"):
            require_free_port(read_configuration(path))
    path.write_text(GOOD.replace("127.0.0.1", "203.0.113.9"))
    with pytest.raises(WrongUsage, match="is no address of this machine"):
        require_free_port(read_configuration(path))


def test_failure_is_reported_in_the_engines_own_sentence() -> None:
    ray = """The deployment failed to start 2 times in a row. Error:
Traceback (most recent call last):
  File "replica.py", line 1, in initialize
dgemma_engine.errors.EngineUnavailable: /models/x: no such folder or GGUF file; name a model folder
"""
    assert failure_of(ray) == "/models/x: no such folder or GGUF file; name a model folder"
    assert failure_of("something else\nhappened\n") == "happened"
    assert failure_of("") == "no reason given"
