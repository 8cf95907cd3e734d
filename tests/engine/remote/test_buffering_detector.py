"""Detects a proxy that holds back several drafts in a row, and no other cause of delay."""

from __future__ import annotations

import pytest
from dgemma_engine.remote.buffering_detector import BufferingDetector, DraftLead

HELD = (400.0, 3.0, 20.0)


def after(*answers: tuple[float, float, float]) -> bool:
    """Returns the verdict after answers of (made_ms, came_ms, network_ms)."""
    detector = BufferingDetector()
    for made_ms, came_ms, network_ms in answers:
        detector.learn(DraftLead(made_ms=made_ms, came_ms=came_ms), network_ms)
    return detector.is_held_back


def test_drafts_that_come_with_punctual_answers_are_reported_after_three() -> None:
    assert not after(HELD, HELD)
    assert after(HELD, HELD, HELD)
    assert after(*[(60.0, 1.0, 5.0)] * 3), "also with a fast engine"


def test_drafts_that_come_before_the_answer_once_end_the_report() -> None:
    assert not after(HELD, HELD, (400.0, 390.0, 20.0), HELD)
    assert not after(HELD, HELD, HELD, (400.0, 390.0, 20.0))


@pytest.mark.parametrize("stalled", [(400.0, 3.0, 380.0), (400.0, 3.0, 900.0), (60.0, 1.0, 40.0)])
def test_late_answers_are_no_evidence(stalled: tuple[float, float, float]) -> None:
    assert not after(*[stalled] * 20)
    assert after(HELD, HELD, stalled, HELD), "and do not reset the count"


def test_drafts_late_in_part_or_hardly_ahead_are_no_evidence() -> None:
    assert not after(*[(400.0, 150.0, 20.0)] * 20)
    assert not after(*[(40.0, 0.0, 1.0)] * 20)
