from __future__ import annotations

from dgemma_engine.tools.tuning.learning_progress import learning_progress


def test_a_step_that_ends_late_takes_no_more_than_the_whole_time() -> None:
    assert learning_progress(0, 60) == (10, "learning, 0.0 of 1.0 minutes")
    assert learning_progress(30, 60) == (46, "learning, 0.5 of 1.0 minutes")
    assert learning_progress(126, 60) == (82, "learning, 1.0 of 1.0 minutes")
