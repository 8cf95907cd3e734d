"""Whether the replicas of a configuration fit: Ray would wait forever for more cards."""

from __future__ import annotations

from pathlib import Path

import pytest
from dgemma_engine.cluster.configuration import read_configuration
from dgemma_engine.cluster.placement import require_room
from dgemma_engine.errors import EngineUnavailable

TEXT = """
applications:
  - name: dgemma
    import_path: dgemma_engine.cluster.application:build
    args: {{allow_anyone: true, gpus: {gpus}, cpus: 2}}
    deployments: [{{name: Engine, num_replicas: 2{options}}}]
"""


def require(tmp_path: Path, *, gpus: float, options: str = "", there: dict[str, float]) -> None:
    path = tmp_path / "team.yaml"
    path.write_text(TEXT.format(gpus=gpus, options=options))
    require_room(read_configuration(path), there)


@pytest.mark.parametrize(
    ("gpus", "options", "there"),
    [
        (1, "", {"GPU": 2.0, "CPU": 4.0}),
        (0.5, "", {"GPU": 1.0, "CPU": 4.0}),
        (0, "", {"CPU": 4.0}),
        (1, ", ray_actor_options: {num_gpus: 0, num_cpus: 1}", {"CPU": 2.0}),
    ],
)
def test_replicas_that_fit(tmp_path: Path, gpus: float, options: str, there: dict[str, float]) -> None:
    require(tmp_path, gpus=gpus, options=options, there=there)


@pytest.mark.parametrize(
    ("gpus", "options", "there", "said"),
    [
        (
            1,
            "",
            {"CPU": 8.0},
            "need 2 GPU in all, and there is 0 on this machine; for a machine without cards set gpus: 0",
        ),
        (
            1,
            "",
            {"GPU": 1.0, "CPU": 8.0},
            "need 2 GPU in all, and there is 1 on this machine; lower num_replicas, or gpus",
        ),
        (0, "", {"CPU": 2.0}, "need 4 CPU in all, and there is 2 on this machine; lower num_replicas, or cpus"),
        (0, ", ray_actor_options: {num_gpus: 2}", {"GPU": 2.0, "CPU": 8.0}, "need 4 GPU in all"),
    ],
)
def test_replicas_that_do_not_fit(
    tmp_path: Path, gpus: float, options: str, there: dict[str, float], said: str
) -> None:
    with pytest.raises(EngineUnavailable) as caught:
        require(tmp_path, gpus=gpus, options=options, there=there)
    assert said in str(caught.value)
