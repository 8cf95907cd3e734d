"""Whether drafts are held back: said of a proxy that holds several in a row, and of nothing else that delays them."""

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


def test_drafts_that_come_with_answers_on_time_are_held_back_after_three() -> None:
    assert not after(HELD, HELD)
    assert after(HELD, HELD, HELD)
    assert after(*[(60.0, 1.0, 5.0)] * 3), "a fast engine's too"


def test_drafts_that_come_apart_once_take_it_back() -> None:
    assert not after(HELD, HELD, (400.0, 390.0, 20.0), HELD)
    assert not after(HELD, HELD, HELD, (400.0, 390.0, 20.0))


@pytest.mark.parametrize("stalled", [(400.0, 3.0, 380.0), (400.0, 3.0, 900.0), (60.0, 1.0, 40.0)])
def test_answers_that_are_late_themselves_tell_nothing(stalled: tuple[float, float, float]) -> None:
    assert not after(*[stalled] * 20)
    assert after(HELD, HELD, stalled, HELD), "and take nothing back"


def test_drafts_that_are_late_in_part_or_hardly_ahead_tell_nothing() -> None:
    assert not after(*[(400.0, 150.0, 20.0)] * 20)
    assert not after(*[(40.0, 0.0, 1.0)] * 20)
