from __future__ import annotations

from types import SimpleNamespace

import pytest
from dgemma_engine.tools.tuning import power


@pytest.mark.parametrize(("plugged", "on_battery"), [(False, True), (True, False), (None, False)])
def test_battery_counts_only_without_mains(
    plugged: bool | None, on_battery: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    battery = SimpleNamespace(power_plugged=plugged)
    monkeypatch.setattr(power.psutil, "sensors_battery", lambda: battery, raising=False)
    assert power.is_on_battery() == on_battery


def test_machine_without_battery_or_ways_to_tell_is_on_mains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power.psutil, "sensors_battery", lambda: None, raising=False)
    assert not power.is_on_battery()
    monkeypatch.delattr(power.psutil, "sensors_battery", raising=False)
    assert not power.is_on_battery()
