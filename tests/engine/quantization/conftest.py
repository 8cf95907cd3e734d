"""Small checkpoints with random weights, plain and quantised."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint.loader import save_checkpoint
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.tools.conversion.converter import quantise_folder

SLIDING, FULL = "sliding_attention", "full_attention"


def config_json(**text: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "vocab_size": 96, "hidden_size": 128, "intermediate_size": 64, "moe_intermediate_size": 64, "num_experts": 4,
        "top_k_experts": 2, "layer_types": [SLIDING, FULL], "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_global_key_value_heads": 1, "head_dim": 16, "global_head_dim": 32, "sliding_window": 8,
        "rope_parameters": {
            SLIDING: {"rope_type": "default", "rope_theta": 1e4},
            FULL: {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
        },
    }  # fmt: skip
    return {"model_type": "diffusion_gemma", "canvas_length": 16, "text_config": values | text}


@pytest.fixture
def make_plain(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that writes a plain checkpoint; keywords override fields of `text_config`."""

    def make(name: str = "plain", *, dtype: torch.dtype = torch.bfloat16, **text: Any) -> Path:
        config = ModelConfig.from_hf(config_json(**text))
        model = DiffusionGemma(config, Ops.reference())
        model.reset_parameters(torch.Generator().manual_seed(1), std=0.1)
        folder = tmp_path / name
        save_checkpoint(model, folder, dtype=dtype)
        return folder

    return make


@pytest.fixture
def make_quantised(make_plain: Callable[..., Path]) -> Callable[..., Path]:
    """Returns a function that quantises a new plain checkpoint."""

    def make(form: Format, **text: Any) -> Path:
        plain = make_plain(**text)
        quantise_folder(plain, plain.parent / form.value, form, report=lambda _percent: None)
        return plain.parent / form.value

    return make


def edit_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
