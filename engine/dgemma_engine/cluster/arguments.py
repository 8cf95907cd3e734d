"""Settings of an engine's replicas in a configuration: plain values -> checked ones; errors name the field.

`EngineArguments` are the application's `args` and change with a new replica only; `ReplicaLimits` are the deployment's
`user_config`, which a running replica takes over without loading its model again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from dgemma_engine.errors import WrongUsage
from dgemma_engine.http_api.access.api_keys import ApiKeys
from dgemma_engine.http_api.http_settings import HttpSettings

_Count = Annotated[int, msgspec.Meta(ge=1)]
_Positive = Annotated[float, msgspec.Meta(gt=0)]
_HEADER_NAME = r"^[A-Za-z0-9-]*$"
_Fields = TypeVar("_Fields", bound=msgspec.Struct)


class EngineArguments(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The application's `args`.

    Attributes:
        model: short name, folder or file, on every machine; empty is the default model.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        api_key_file: lines of KEY or NAME KEY, on every machine.
        user_header: name of a header in which a proxy names the user; it counts only beside a key that the proxy adds.
        allow_anyone: whether requests need no key; for a network that only the users reach.
        allow_hosts: names besides addresses that clients know the machines by.
        allow_origins: origins of web pages that may send requests.
        prompt_cache_gib: memory for encoded prompts of a replica; 0 is a share of what the model leaves.
        gpus: cards of a replica; fractions share a card.
        cpus: cores of a replica, for placement and as its number of threads.
    """

    model: str = ""
    device: str = "auto"
    api_key_file: str = ""
    user_header: Annotated[str, msgspec.Meta(pattern=_HEADER_NAME, max_length=64)] = ""
    allow_anyone: bool = False
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    prompt_cache_gib: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    gpus: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    cpus: _Positive = 1.0


class ReplicaLimits(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The deployment's `user_config`; see the fields of `HttpSettings` with the same names.

    Attributes:
        max_requests: most completions under way in a replica; one more is answered with 429.
        num_at_once: documents that a replica works on at the same time.
        max_wait_s: seconds that a completion may wait for its turn.
        deadline_ms: milliseconds for one answer where the client names none.
        max_middle_tokens: most tokens of one answer.
        insistent: whether every answer is the best text however unlikely.
        longest_step_s: seconds that one step may take before the replica counts as stuck; the first one may compile.
    """

    max_requests: _Count = 16
    num_at_once: _Count = 2
    max_wait_s: _Positive = 5.0
    deadline_ms: _Positive = 3_000.0
    max_middle_tokens: Annotated[int, msgspec.Meta(ge=1, le=4_096)] = 256
    insistent: bool = False
    longest_step_s: _Positive = 120.0


def read_arguments(values: Mapping[str, Any] | None) -> EngineArguments:
    """Returns the application's `args`.

    Raises:
        WrongUsage: an unknown field, a wrong value, or access without keys although `allow_anyone` is not set.
    """
    arguments = _read(values, EngineArguments, "args")
    if not (arguments.api_key_file or arguments.allow_anyone):
        raise WrongUsage("args: replicas can be reached from other machines; name an api_key_file, or set allow_anyone")
    if arguments.user_header and not arguments.api_key_file:
        raise WrongUsage("args: user_header counts beside a key only, which the proxy adds; name an api_key_file")
    return arguments


def read_limits(values: Mapping[str, Any] | None) -> ReplicaLimits:
    """Returns the deployment's `user_config`.

    Raises:
        WrongUsage: an unknown field or a wrong value.
    """
    return _read(values, ReplicaLimits, "user_config")


def http_settings(arguments: EngineArguments, limits: ReplicaLimits) -> HttpSettings:
    """Returns the settings of a replica's application.

    Raises:
        WrongUsage: the file of keys cannot be used.
    """
    path = Path(arguments.api_key_file).expanduser() if arguments.api_key_file else None
    return HttpSettings(
        keys=ApiKeys.read(path, {}),
        user_header=arguments.user_header.lower(),
        hosts=tuple(name.lower() for name in arguments.allow_hosts),
        origins=arguments.allow_origins,
        max_requests=limits.max_requests,
        num_at_once=limits.num_at_once,
        max_wait_s=limits.max_wait_s,
        deadline_ms=limits.deadline_ms,
        max_middle_tokens=limits.max_middle_tokens,
        insistent=limits.insistent,
    )


def _read(values: Mapping[str, Any] | None, kind: type[_Fields], place: str) -> _Fields:
    try:
        return msgspec.convert(dict(values or {}), type=kind)
    except msgspec.ValidationError as error:
        raise WrongUsage(f"{place}: {error}") from None
