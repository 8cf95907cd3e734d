"""Plays random sessions against real servers until a number of steps is done."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from dgemma_engine.ipc.endpoint import EngineLocation
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.lsp.chaos.engine import ChaosEngine, chaos_engine
from tests.lsp.chaos.ledger import Report
from tests.lsp.chaos.machine import ChaosMachine
from tests.lsp.chaos.process import ServerPool

# Most rules make one step, some several and some none. Many, because each session waits for Python to start.
_RULES_PER_SESSION = 500
_SESSIONS_PER_SEED = 25


@contextmanager
def instant_engine() -> Generator[tuple[Path, ChaosEngine]]:
    """Gives an engine that answers at once, and the folder of its socket."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        location = EngineLocation.locate(os.environ | {"DGEMMA_RUNTIME_DIR": folder})
        with chaos_engine(location) as engine:
            yield Path(folder), engine


def play(folder: Path, engine: ChaosEngine | None, *, num_steps: int, first_seed: int, raises: bool) -> Report:
    """Plays sessions until a number of steps is done, and returns their counts.

    Args:
        folder: of the engine's socket.
        engine: which dies now and then; None leaves the engine alone.
        num_steps: the least number of steps.
        first_seed: random seed of the first sessions; later ones count up from it.
        raises: whether a session that fails ends the play and is shortened; the counts then include the attempts
            to shorten it. False only counts faults.

    Raises:
        AssertionError: something was not answered as it must be; hypothesis has printed the steps.
    """
    report = Report()
    with ServerPool(folder) as pool:
        while report.steps.total() < num_steps:
            number = first_seed + len(report.seeds)
            left = num_steps - report.steps.total()
            report.seeds.append(number)

            def machine() -> ChaosMachine:
                return ChaosMachine(pool, engine, report, raises=raises)

            run_state_machine_as_test(
                seed(number)(machine),
                settings=settings(
                    max_examples=max(2, min(_SESSIONS_PER_SEED, left // _RULES_PER_SESSION)),
                    stateful_step_count=_RULES_PER_SESSION,
                    database=None,
                    deadline=None,
                    phases=(Phase.generate, Phase.shrink),
                    suppress_health_check=list(HealthCheck),
                    print_blob=False,
                    report_multiple_bugs=False,
                ),
            )
    return report
