from __future__ import annotations

from collections.abc import Callable

import pytest
from dgemma_engine.errors import TrainingError
from dgemma_engine.tools.adaptation.config import AdaptConfig, OptimizerConfig, SampleConfig


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdaptConfig(rank=0), "rank=0 must be at least 1"),
        (lambda: SampleConfig(holes=0), "samples.holes=0 must be at least 1"),
        (lambda: SampleConfig(documents=0), "samples.documents=0 must be at least 1"),
        (lambda: OptimizerConfig(rate=-1.0), "optimizer.rate=-1.0 must be more than 0"),
    ],
)
def test_value_out_of_range_is_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TrainingError, match=f"^{message}$"):
        make()
