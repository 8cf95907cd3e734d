from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dgemma_engine.errors import TrainingError
from dgemma_engine.families.llama.adapter import Adapter
from dgemma_engine.tools.adaptation.adapted_base import AdaptedBase
from dgemma_engine.tools.adaptation.adapter_writer import write_adapter
from dgemma_engine.tools.tuning import training_config
from dgemma_engine.tools.tuning.training_config import fitting_rank, tune_config
from safetensors.torch import load_file


def test_best_rank_that_fits_is_taken(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merged = Adapter.read(base.parent / "adapters" / "causal.safetensors")
    assert fitting_rank(base, merged) == 16
    monkeypatch.setattr(training_config, "SPARE_BYTES", 0)
    for rank in (16, 8):
        adapted = AdaptedBase(base, rank=rank, device=torch.device("cpu"), seed=0, beneath=merged)
        path = write_adapter(
            adapted.factors, tmp_path, stage="causal", base_sha256="", tokens=merged.tokens, provenance={}
        )
        num_bytes = sum(tensor.nbytes for tensor in load_file(path).values())
        monkeypatch.setattr(training_config, "MAX_BYTES", num_bytes)
        assert fitting_rank(base, merged) == rank
        monkeypatch.setattr(training_config, "MAX_BYTES", num_bytes - 1)
        assert fitting_rank(base, merged) == rank // 2
    monkeypatch.setattr(training_config, "MAX_BYTES", 1_000)
    with pytest.raises(TrainingError, match=r"model\.gguf: its adapter would have more than 0 MiB; choose a smaller"):
        fitting_rank(base, merged)


def test_configuration_saves_every_minute() -> None:
    config = tune_config(rank=8, seed=3)
    assert (config.rank, config.seed, config.save_s) == (8, 3, 60.0)
