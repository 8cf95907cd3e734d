"""Start of Ray Serve: what fails in Ray is one sentence with a remedy."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from dgemma_engine.cluster import ray_serve
from dgemma_engine.errors import EngineUnavailable
from ray.exceptions import ActorDiedError

CONFIGURATION = """
http_options: {host: 127.0.0.1, port: 8123}
applications:
  - name: dgemma
    import_path: dgemma_engine.cluster.application:build
    args: {model: tiny, allow_anyone: true}
"""


class NoSignals:
    is_ended = False


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ActorDiedError(), r"\(The actor died unexpectedly before finishing this task\.\)"),
        (TimeoutError("HTTP proxies not available after 60s."), r"\(HTTP proxies not available after 60s\.\)"),
    ],
    ids=["ended by Ray", "timeout"],
)
def test_http_server_that_does_not_start_is_reported_in_one_sentence(
    error: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path := tmp_path / "teams.yaml").write_text(CONFIGURATION)

    def fail(**_options: object) -> None:
        raise error

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray_serve, "connected_ray", lambda *_: nullcontext())
    monkeypatch.setattr(ray_serve.serve, "start", fail)
    with pytest.raises(EngineUnavailable, match=rf"did not start in time; end what .* run the command again {reason}$"):
        ray_serve.serve_configuration(path, say=print, temporary=tmp_path, signals=NoSignals())  # pyright: ignore[reportArgumentType]
