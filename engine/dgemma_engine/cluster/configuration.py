"""A configuration file of Ray Serve -> a checked one, before anything is started."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import (
    DeploymentSchema,
    HTTPOptionsSchema,
    RayActorOptionsSchema,
    ServeApplicationSchema,
    ServeDeploySchema,
)

from dgemma_engine.checkpoint.builtin import require_model
from dgemma_engine.cluster.arguments import ReplicaLimits, http_settings, read_arguments, read_limits
from dgemma_engine.errors import PortInUse, WrongUsage
from dgemma_engine.model_store.choice import choose_model

IMPORT_PATH = "dgemma_engine.cluster.application:build"
_PARTS: Mapping[str, type[BaseModel]] = {
    "http_options": HTTPOptionsSchema,
    "applications": ServeApplicationSchema,
    "deployments": DeploymentSchema,
    "ray_actor_options": RayActorOptionsSchema,
}
_NO_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def read_configuration(path: Path) -> ServeDeploySchema:
    """Reads and checks a file: Ray's part by Ray's schema, ours field by field.

    Args:
        path: YAML, as `serve deploy` takes it.

    Raises:
        WrongUsage: it cannot be read, is no configuration, or has an unknown field; the message names it.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise WrongUsage(f"--ray {path}: cannot be read ({reason})") from None
    except yaml.YAMLError as error:
        raise WrongUsage(f"--ray {path}: is no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise WrongUsage(
            f"--ray {path}: holds no table; dgemma-engine serve --ray-example first_steps prints an example"
        )
    try:
        configuration = ServeDeploySchema.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise WrongUsage(f"--ray {path}: {place}: {first['msg']}") from None
    if unknown := next(_unknown(values, ServeDeploySchema, ""), ""):
        raise WrongUsage(f"--ray {path}: {unknown} is no field of Ray Serve")
    own = own_applications(configuration)
    if not own:
        raise WrongUsage(f"--ray {path}: no application has import_path {IMPORT_PATH}")
    for application in own:
        _check(application.args, application.deployments, path)
    return configuration


def own_applications(configuration: ServeDeploySchema) -> list[ServeApplicationSchema]:
    """Returns the applications that are ours."""
    return [one for one in configuration.applications if one.import_path == IMPORT_PATH]


def require_keys_and_models(configuration: ServeDeploySchema) -> None:
    """Checks on this machine what each replica needs on its own.

    Raises:
        WrongUsage: a file of keys cannot be used, or a model is not there.
    """
    for application in own_applications(configuration):
        arguments = read_arguments(application.args)
        http_settings(arguments, ReplicaLimits())
        require_model(choose_model(arguments.model or None, os.environ).runs)


def require_free_port(configuration: ServeDeploySchema) -> None:
    """Checks that Ray's proxy can listen; Ray itself says it in a log only.

    Raises:
        PortInUse: another program listens on the address.
        WrongUsage: this machine has no such address.
    """
    options = configuration.http_options
    place = f"{options.host}:{options.port}"
    try:
        with socket.create_server((options.host, options.port)):
            pass
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno in _NO_ADDRESS:
            raise WrongUsage(f"http_options: {place} is no address of this machine") from None
        raise PortInUse(f"http_options: {place} is in use; choose another port") from None


def _unknown(values: object, kind: type[BaseModel], place: str) -> Generator[str]:
    """Yields the fields that Ray would ignore: a typing error in a name must not become a default."""
    if not isinstance(values, Mapping):
        return
    for name, value in values.items():
        where = f"{place}{name}"
        if name not in kind.model_fields:
            yield where
        elif name in _PARTS:
            parts = value if isinstance(value, list) else [value]
            for number, part in enumerate(parts):
                inner = f"{where}.{number}." if isinstance(value, list) else f"{where}."
                yield from _unknown(part, _PARTS[name], inner)


def _check(args: Any, deployments: Any, path: Path) -> None:
    try:
        read_arguments(args if isinstance(args, Mapping) else {})
        for deployment in deployments:
            if isinstance(deployment.user_config, Mapping):
                read_limits(deployment.user_config)
    except WrongUsage as error:
        raise WrongUsage(f"--ray {path}: {error}") from None
