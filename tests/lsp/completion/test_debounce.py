"""How long a request waits before the engine is asked, by typing cadence and latency."""

from __future__ import annotations

import pytest

from dgemma_lsp.completion.admission import DebounceConfig, LatencyEstimate, TypingCadence


def rhythm(*gaps_s: float) -> tuple[TypingCadence, float]:
    """Returns a cadence after keys with these gaps, and the time of the last key."""
    keys, now_s = TypingCadence(DebounceConfig()), 100.0
    keys.key(now_s)
    for gap_s in gaps_s:
        now_s += gap_s
        keys.key(now_s)
    return keys, now_s


@pytest.mark.parametrize(
    ("gaps_s", "latency_s", "wait_s"),
    [
        ((), 0.5, 0.0),  # The first key of all,
        ((0.1, 0.1, 1.5), 0.5, 0.0),  # and the first after a pause.
        ((0.2,), 0.0, 0.0),  # Nothing is known of the engine yet.
        ((0.2, 0.2), 0.1, 0.0),  # It is fast enough for every key.
        ((0.2, 0.2), 0.15, 0.15),
        ((0.15, 0.15), 0.5, 0.075),  # Too slow to answer before the next key.
        ((0.5, 0.5), 0.6, 0.08),  # Not longer than this,
        ((0.5, 0.5), 0.3, 0.3),  # nor than this where it is nearly fast enough.
        ((0.02, 0.02), 0.001, 0.03),  # A held key,
        ((0.02, 0.02), 0.5, 0.03),  # also with an engine that is too slow.
        ((0.1, 0.2), 0.1, 0.095),  # The newest gap weighs 0.3.
    ],
)
def test_wait(gaps_s: tuple[float, ...], latency_s: float, wait_s: float) -> None:
    keys, now_s = rhythm(*gaps_s)
    assert keys.wait_s(now_s, latency_s) == pytest.approx(wait_s)


def test_engine_that_answered_with_nothing_is_asked_in_a_pause() -> None:
    keys, now_s = rhythm(0.1, 0.1)
    assert keys.wait_s(now_s, 0.01) == 0.0
    assert keys.wait_s(now_s, 0.01, said_nothing=True) == pytest.approx(0.15)
    keys, now_s = rhythm(0.1, 1.5)
    assert keys.wait_s(now_s, 0.01, said_nothing=True) == 0.0, "the first key after a pause"


def test_time_the_client_waited_counts() -> None:
    keys, now_s = rhythm(0.2, 0.2)
    assert keys.wait_s(now_s + 0.1, 0.15) == pytest.approx(0.05)
    assert keys.wait_s(now_s + 0.2, 0.15) == 0.0


def test_no_key_is_no_wait() -> None:
    assert TypingCadence(DebounceConfig()).wait_s(5.0, 1.0) == 0.0


def test_latency_begins_with_the_first_measurement_and_averages() -> None:
    latency = LatencyEstimate(DebounceConfig(weight=0.5))
    assert latency.mean_s == 0.0
    latency.learn(0.4)
    assert latency.mean_s == pytest.approx(0.4)
    latency.learn(0.2)
    assert latency.mean_s == pytest.approx(0.3)


def test_abandoned_request_is_a_lower_bound_of_the_latency() -> None:
    latency = LatencyEstimate(DebounceConfig(weight=0.5))
    latency.exceeds(0.4)
    assert latency.mean_s == pytest.approx(0.4)
    latency.exceeds(0.1)
    assert latency.mean_s == pytest.approx(0.4), "a bound below the mean"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight": 0.0}, r"self\.weight=0\.0 must be above 0"),
        ({"repeat_s": 2.0}, r"self\.repeat_s=2\.0 <= self\.pause_s=1\.0"),
        ({"longest_s": -1.0}, r"self\.longest_s=-1\.0 and self\.longest_slow_s=0\.08 must not be negative"),
    ],
)
def test_config_refuses_wrong_values(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DebounceConfig(**values)
