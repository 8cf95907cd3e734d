"""Arguments and limits of replicas: every wrong field is named in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from dgemma_engine.cluster.arguments import ReplicaLimits, http_settings, read_arguments, read_limits
from dgemma_engine.errors import WrongUsage


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"modle": "tiny", "allow_anyone": True}, "args: Object contains unknown field `modle`"),
        ({"model": 5, "allow_anyone": True}, "args: Expected `str`, got `int` - at `$.model`"),
        ({"gpus": -1, "allow_anyone": True}, "args: Expected `float` >= 0.0 - at `$.gpus`"),
        ({"cpus": 0, "allow_anyone": True}, "args: Expected `float` > 0.0 - at `$.cpus`"),
        ({}, "args: replicas can be reached from other machines; name an api_key_file, or set allow_anyone"),
        (None, "args: replicas can be reached from other machines; name an api_key_file, or set allow_anyone"),
        (
            {"allow_anyone": True, "user_header": "x-user"},
            "args: user_header counts beside a key only, which the proxy adds; name an api_key_file",
        ),
    ],
)
def test_wrong_arguments_are_named(values: dict[str, object] | None, said: str) -> None:
    with pytest.raises(WrongUsage) as caught:
        read_arguments(values)
    assert str(caught.value) == said


def test_name_of_a_header_is_checked() -> None:
    with pytest.raises(WrongUsage, match=r"\$\.user_header"):
        read_arguments({"api_key_file": "keys", "user_header": "x user"})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_request": 5}, "user_config: Object contains unknown field `max_request`"),
        ({"max_requests": 0}, "user_config: Expected `int` >= 1 - at `$.max_requests`"),
        ({"max_wait_s": "long"}, "user_config: Expected `float`, got `str` - at `$.max_wait_s`"),
        ({"max_middle_tokens": 5_000}, "user_config: Expected `int` <= 4096 - at `$.max_middle_tokens`"),
    ],
)
def test_wrong_limits_are_named(values: dict[str, object], said: str) -> None:
    with pytest.raises(WrongUsage) as caught:
        read_limits(values)
    assert str(caught.value) == said


def test_missing_limits_are_the_defaults() -> None:
    assert read_limits(None) == read_limits({}) == ReplicaLimits()


def test_settings_are_those_of_the_configuration(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("ann aaaaaaaaaaaaaaaa\n")
    arguments = read_arguments({"api_key_file": str(keys), "user_header": "X-User", "allow_hosts": ["Box.lan"]})
    settings = http_settings(arguments, ReplicaLimits(max_requests=3, insistent=True))
    assert (settings.user_header, settings.hosts) == ("x-user", ("box.lan",))
    assert (settings.max_requests, settings.insistent) == (3, True)
    assert settings.keys.name_of({"x-api-key": "aaaaaaaaaaaaaaaa"}) == "ann"


def test_missing_file_of_keys_is_named(tmp_path: Path) -> None:
    arguments = read_arguments({"api_key_file": str(tmp_path / "none")})
    with pytest.raises(WrongUsage, match=r"--api-key-file .*none: cannot be read"):
        http_settings(arguments, ReplicaLimits())
