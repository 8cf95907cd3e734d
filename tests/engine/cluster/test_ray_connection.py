"""Connecting to a Ray that does not answer or that takes long."""

from __future__ import annotations

import socket
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import pytest
from dgemma_engine.cluster.ray_connection import _wait_for, connected_ray
from dgemma_engine.cluster.signals import Signals
from dgemma_engine.errors import EngineUnavailable


class Told:
    """`Signals` with a fixed state."""

    def __init__(self, *, is_ended: bool) -> None:
        self.is_ended = is_ended


def signals(*, is_ended: bool = False) -> Signals:
    return cast("Signals", cast("Any", Told(is_ended=is_ended)))


def test_address_where_nothing_listens_is_reported_in_one_sentence_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (
        pytest.raises(
            EngineUnavailable, match=f"RAY_ADDRESS=127.0.0.1:{port}: nothing listens there .*; start Ray first"
        ),
        connected_ray(f"127.0.0.1:{port}", tmp_path / "ray", signals()),
    ):
        raise AssertionError("there is no Ray")


def test_ray_that_does_not_answer_is_given_up() -> None:
    with pytest.raises(TimeoutError):
        _wait_for(Future(), signals(), patience_s=0.01)


def test_signal_ends_the_wait_for_a_joined_ray() -> None:
    with pytest.raises(TimeoutError):
        _wait_for(Future(), signals(is_ended=True), patience_s=600.0)


def test_own_ray_is_waited_for_so_that_it_can_be_ended() -> None:
    done = Future[None]()
    done.set_exception(ConnectionError("no room"))
    with pytest.raises(ConnectionError, match="no room"):
        _wait_for(done, signals(is_ended=True), patience_s=float("inf"))
